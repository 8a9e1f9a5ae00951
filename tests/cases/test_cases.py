"""The conformance cases, run with installed plugins and with `pycni` as cnitool."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCase = Callable[..., list[dict[str, Any]]]

RUNNER = Path(__file__).with_name("run_cases.py")
CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())["cases"]
TYPICAL = ("bridge", "static")  # one with links, one without
OPTIONAL_LINK_KINDS = ("dummy", "ipvlan", "vlan", "vrf")  # plugins whose link kind some kernels lack
# Cases with paths relative to the working directory of the caller, which is not the server's.
RELATIVE = {"C033-gc-status-ignore-ids", "C035-gc-ignores-ids", "C152-netns-echo"}
PYCNI = f"{sys.executable} -m pycni"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, or `unshare -Urnm`")


@pytest.fixture
def run_case(tmp_path: Path) -> RunCase:
    """Return a function that runs one case with the plugins of a directory and returns the runner's results."""

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
    # The runner imports modules beside it, which PYTHONSAFEPATH (set by scripts/test) forbids.
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


def is_for_every_plugin(case: dict[str, Any]) -> bool:
    """Return whether the case is about the protocol, which all plugins share."""
    return case.get("plugins") == "*"


def needs_optional_link_kinds(case: dict[str, Any]) -> bool:
    """Return whether the case expects STATUS to succeed for plugins whose link kind the kernel may lack."""
    expects_success = case.get("env", {}).get("CNI_COMMAND") == "STATUS" and case.get("expect", {}).get("exit") == 0
    return expects_success and any(name in case.get("plugins", ()) for name in OPTIONAL_LINK_KINDS)


@cases(lambda case: case.get("run") != "cnitool" and not is_for_every_plugin(case))
def test_plugin_case(case: dict[str, Any], run_case: RunCase, bin_directory: Path) -> None:
    restricted = needs_optional_link_kinds(case)
    others = {path.name for path in bin_directory.iterdir()} - set(OPTIONAL_LINK_KINDS)
    assert_none_failed(run_case(case, bin_directory, *(["--plugins", ",".join(others)] if restricted else [])))


@pytest.mark.needs_kernel(*OPTIONAL_LINK_KINDS)
@cases(needs_optional_link_kinds)
def test_case_with_optional_link_kinds(case: dict[str, Any], run_case: RunCase, bin_directory: Path) -> None:
    assert_none_failed(run_case(case, bin_directory, "--plugins", ",".join(OPTIONAL_LINK_KINDS)))


@cases(is_for_every_plugin)
def test_protocol_case(case: dict[str, Any], run_case: RunCase, bin_directory: Path) -> None:
    assert_none_failed(run_case(case, bin_directory, "--plugins", ",".join(TYPICAL)))


@pytest.mark.exhaustive
@cases(is_for_every_plugin)
def test_protocol_case_with_all_other_plugins(case: dict[str, Any], run_case: RunCase, bin_directory: Path) -> None:
    others = sorted({path.name for path in bin_directory.iterdir()} - set(TYPICAL))
    assert_none_failed(run_case(case, bin_directory, "--plugins", ",".join(others)))


@pytest.mark.exhaustive
@cases(lambda case: case.get("run") == "cnitool")
def test_runtime_case(case: dict[str, Any], run_case: RunCase, tmp_path: Path) -> None:
    assert_none_failed(run_case(case, tmp_path))


def test_runner_reports_a_failure(run_case: RunCase, tmp_path: Path) -> None:
    """Otherwise no case could fail."""
    case = {"id": "X", "title": "x", "run": "sh", "sh": "echo '{}'", "expect": {"json": {"a": 1}}}
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [case]}))
    done = run_python(RUNNER, "--bin", tmp_path, "--cases", tmp_path / "cases.json")
    assert done.returncode == 1, done.stderr
    assert "$.a: missing in {}" in done.stdout
