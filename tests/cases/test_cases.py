"""The conformance cases: plugins that `pycni install` put into a directory, and `pycni` in cnitool's place."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ResultsOf = Callable[..., list[dict[str, Any]]]

RUNNER = Path(__file__).with_name("run_cases.py")
CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())["cases"]
TYPICAL = ("bridge", "static")  # one with links, one without
LACKING = ("dummy", "ipvlan", "vlan", "vrf")  # with links of a kind that some kernels lack
# With a path that is relative to the caller's directory, which is not the server's.
RELATIVE = {"C033-gc-status-ignore-ids", "C035-gc-ignores-ids", "C152-netns-echo"}
PYCNI = f"{sys.executable} -m pycni"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, or `unshare -Urnm`")


@pytest.fixture
def results_of(tmp_path: Path) -> ResultsOf:
    """What the runner says of one case with the plugins of a directory."""

    def run(case: dict[str, Any], directory: Path, *options: str) -> dict[str, Any]:
        verdicts = tmp_path / "verdicts.json"
        command = [RUNNER, "--bin", directory, "--cnitool", PYCNI, "--only", f"^{case['id']}$", "--json", verdicts]
        server = directory.with_name("server.pid")
        sandbox = ["--in", server.read_text()] if server.exists() else []
        done = run_python(*command, *options, *sandbox)
        assert verdicts.exists(), done.stdout + done.stderr
        return json.loads(verdicts.read_text())

    return run


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # The runner imports what stands beside it, which PYTHONSAFEPATH (of scripts/test) would forbid.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=env)


def assert_none_failed(results: list[dict[str, Any]]) -> None:
    failed = [f"{result['plugin'] or ''} {result['message']}" for result in results if result["verdict"] == "FAIL"]
    assert not failed, "\n".join(failed)
    if all(result["verdict"] == "SKIP" for result in results):
        pytest.skip("; ".join(sorted({result["message"] for result in results})) or "there is no plugin for it")


def cases(wanted: Callable[[dict[str, Any]], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case["id"], marks=[pytest.mark.one_shot] if case["id"] in RELATIVE else [])
            for case in CASES
            if wanted(case)
        ],
    )


def is_of_every_plugin(case: dict[str, Any]) -> bool:
    """Whether it is about what all plugins have in common: the protocol."""
    return case.get("plugins") == "*"


def asks_for_lacking_links(case: dict[str, Any]) -> bool:
    """Whether plugins shall be ready that are not where the kernel has no such links."""
    be_ready = case.get("env", {}).get("CNI_COMMAND") == "STATUS" and case.get("expect", {}).get("exit") == 0
    return be_ready and any(name in case.get("plugins", ()) for name in LACKING)


@cases(lambda case: case.get("run") != "cnitool" and not is_of_every_plugin(case))
def test_a_plugin_case(case: dict[str, Any], results_of: ResultsOf, bin_directory: Path) -> None:
    restricted = asks_for_lacking_links(case)
    others = {path.name for path in bin_directory.iterdir()} - set(LACKING)
    assert_none_failed(results_of(case, bin_directory, *(["--plugins", ",".join(others)] if restricted else [])))


@pytest.mark.needs_kernel(*LACKING)
@cases(asks_for_lacking_links)
def test_a_case_of_links_that_kernels_may_lack(
    case: dict[str, Any], results_of: ResultsOf, bin_directory: Path
) -> None:
    assert_none_failed(results_of(case, bin_directory, "--plugins", ",".join(LACKING)))


@cases(is_of_every_plugin)
def test_a_case_of_the_protocol(case: dict[str, Any], results_of: ResultsOf, bin_directory: Path) -> None:
    assert_none_failed(results_of(case, bin_directory, "--plugins", ",".join(TYPICAL)))


@pytest.mark.exhaustive
@cases(is_of_every_plugin)
def test_a_case_of_the_protocol_by_all_others(case: dict[str, Any], results_of: ResultsOf, bin_directory: Path) -> None:
    others = sorted({path.name for path in bin_directory.iterdir()} - set(TYPICAL))
    assert_none_failed(results_of(case, bin_directory, "--plugins", ",".join(others)))


@pytest.mark.exhaustive
@cases(lambda case: case.get("run") == "cnitool")
def test_a_runtime_case(case: dict[str, Any], results_of: ResultsOf, tmp_path: Path) -> None:
    assert_none_failed(results_of(case, tmp_path))


def test_the_runner_reports_a_failure(results_of: ResultsOf, tmp_path: Path) -> None:
    """The cases mean nothing if the runner is content with everything."""
    case = {"id": "X", "title": "x", "run": "sh", "sh": "echo '{}'", "expect": {"json": {"a": 1}}}
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [case]}))
    done = run_python(RUNNER, "--bin", tmp_path, "--cases", tmp_path / "cases.json")
    assert done.returncode == 1, done.stderr
    assert "$.a: missing in {}" in done.stdout
