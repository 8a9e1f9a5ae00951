"""Fixtures for tests of executables, and skipping of tests that need kernel features."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pycni.kernel.link.links import Links
from pycni.protocol.errors import CniError
from pycni.testing import Host, wait_for
from pycni.testing.topology import Netns

# How long an example takes depends on what else the machine does.
settings.register_profile("pycni", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pycni")

_INPUT_COUNTS = "input counts"
ACME = Path(__file__).with_name("third_party") / "acme_mtu"


# Daily runs use the server only, which takes a tenth of the time.
MODES = [pytest.param("one-shot", marks=pytest.mark.exhaustive), "served"]
Executables = Callable[..., AbstractContextManager[Path]]

# Python runs this module at startup. An import is audited only if the module is not loaded yet.
_SITECUSTOMIZE = """
import sys, threading

def record(line):
    with open({log!r}, "a") as file:
        file.write(line + "\\n")

def record_import(event, args):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        record(args[0])

if "serve" in sys.orig_argv:
    record("recording")
    sys.addaudithook(record_import)
"""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m needs_kernel`, ignore files without this marker: importing them is slow in the guest."""
    if config.option.markexpr == "needs_kernel" and collection_path.name.startswith("test_"):
        sources = [source for source in (collection_path, collection_path.with_name("conftest.py")) if source.exists()]
        return None if any("needs_kernel" in source.read_text() for source in sources) else True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need a kernel feature and use a server.

    The guest is slow, and other tests show the effect of a server.
    """
    redundant = [item for item in items if item.get_closest_marker("needs_kernel") and _is_served(item)]
    if redundant:
        config.hook.pytest_deselected(items=redundant)
        items[:] = [item for item in items if item not in redundant]


def _is_served(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)  # only parametrized tests have it
    return call is not None and "served" in call.params.values()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs a feature of another kernel; `scripts/test --guest` runs it."""
    wanted = [feature for marker in item.iter_markers("needs_kernel") for feature in marker.args]
    try:
        missing = [feature for feature in wanted if not _kernel_has(feature)]
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    if missing:
        pytest.skip(f"needs a kernel with {', '.join(missing)}")


@pytest.fixture
def count_input(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that counts the inputs of a fuzzing test by kind. The summary of the run shows the counts."""
    inputs: dict[str, int] = {}
    record_property(_INPUT_COUNTS, inputs)

    def count(what: str) -> None:
        inputs[what] = inputs.get(what, 0) + 1

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show how many inputs the fuzzing tests have used."""
    inputs = Counter[str]()
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        inputs.update(*(counts for name, counts in report.user_properties if name == _INPUT_COUNTS))
    for what, count in sorted(inputs.items()):
        terminalreporter.write_line(f"fuzzing: {count} {what}")


@pytest.fixture
def record_imports(tmp_path: Path) -> Callable[[Path], Callable[[], list[str]]]:
    """Return a function that makes a server log the modules that its calls import.

    Its argument is a directory on the server's PYTHONPATH. It returns a function that returns the modules.
    """
    log = tmp_path / "imports"

    def imported_modules() -> list[str]:
        first, *modules = log.read_text().split()
        assert first == "recording"
        return modules

    def record(modules: Path) -> Callable[[], list[str]]:
        (modules / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(log=str(log)))
        return imported_modules

    return record


@pytest.fixture
def other_users() -> None:
    """Skip the test if the user namespace has no other users than root."""
    if sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()) == 1:
        pytest.skip("needs other users than root; `unshare -Urnm` has none")


@pytest.fixture
def kernel_has() -> Callable[[str], bool]:
    """Return a function that tests for a kernel feature.

    Features are link kinds, "bridge VLAN filtering", "sctp", "selinux", and "cards" for network cards that belong to
    the test.
    """
    return _kernel_has


@cache
def _kernel_has(feature: str) -> bool:
    if feature == "sctp":
        return _has_sctp()
    if feature == "cards":
        return "pycni.cards" in Path("/proc/cmdline").read_text()
    if feature == "selinux":
        return Path("/sys/fs/selinux").is_dir()
    with closing(Netns()) as netns:
        if feature == "bridge VLAN filtering":
            netns.run("ip link add br0 type bridge; ip link set br0 type bridge vlan_filtering 1", check=False)
            (bridge,) = netns.json("ip -j -d link show br0")
            return bool(bridge["linkinfo"]["info_data"]["vlan_filtering"])
        try:
            Links(netns.netns).expect_kind_supported(feature)
        except CniError:
            return False
        return True


def _has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session", params=MODES)
def bin_directory(request: pytest.FixtureRequest, executables: Executables) -> Iterator[Path]:
    """Install every plugin as executables: without a server, and with one."""
    with executables(mode=request.param) as directory:
        yield directory


@pytest.fixture(autouse=True)
def server_answers_every_call(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if a launcher ran the one-shot script although there is a server.

    Launchers do so silently, so the scripts are changed to log their calls. The mark `one_shot` is for calls that a
    server refuses.
    """
    used = {"bin_directory", "acme_bin_directory"} & set(request.fixturenames)
    logs = [request.getfixturevalue(name).with_name("oneshot.log") for name in used]
    yield
    for log in filter(Path.exists, logs):
        started = log.read_text()
        log.unlink()
        assert request.node.get_closest_marker("one_shot"), f"not answered by the server: {started}"


@pytest.fixture(scope="session")
def executables(tmp_path_factory: pytest.TempPathFactory) -> Executables:
    """Return a context manager that installs every plugin into a directory."""

    @contextmanager
    def install(*, mode: str, socket: Path | None = None, before_server: Sequence[str | Path] = (), **env: str) -> Any:
        """Install and, in mode "served", run a server.

        `before_server` is a command that starts the server. With `socket`, the test starts the server itself, with the
        command in the file `serve` beside the directory.
        """
        directory = tmp_path_factory.mktemp("cni") / "bin"
        server_socket = directory.with_name("pycni.sock") if socket is None else socket
        state = directory.with_name("state")
        _pycni("install", directory, "--state-dir", state, "--socket", server_socket, "--no-server", **env)
        if mode == "one-shot":
            yield directory
            return
        scripts = list((state / "oneshot").glob("*/*/*"))
        if not scripts:
            pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
        for script in scripts:
            _log_calls_of(script, directory.with_name("oneshot.log"))
        variables = [f"{name}={value}" for name, value in (env | {"PYTHONSAFEPATH": "1"}).items()]
        serve = ["env", *variables, sys.executable, "-P", "-m", "pycni", "serve", "--socket", str(server_socket)]
        if socket is not None:
            directory.with_name("serve").write_text(shlex.join(serve))
            yield directory
            return
        with _served(directory, [*before_server, *serve]):
            yield directory

    return install


def _log_calls_of(script: Path, log: Path) -> None:
    shell_start = "''':'\n"
    text = script.read_text()
    assert shell_start in text
    script.write_text(text.replace(shell_start, f"{shell_start}echo {script.name} $CNI_COMMAND >>{log}\n", 1))


@contextmanager
def _served(directory: Path, serve: Sequence[str | Path]) -> Iterator[None]:
    log_file = directory.with_name("server.log")
    with log_file.open("wb") as log:
        server = subprocess.Popen(serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    directory.with_name("server.pid").write_text(str(server.pid))
    try:
        wait_for(lambda: "serving at" in log_file.read_text() or server.poll() is not None, "the server", seconds=60)
        assert server.poll() is None, log_file.read_text()
        yield
        server.terminate()
        assert server.wait(60) == 0, log_file.read_text()
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install acme-mtu, a third-party plugin in its own distribution, with pip; return the target directory."""
    source = tmp_path_factory.mktemp("source") / "acme_mtu"
    shutil.copytree(ACME, source)
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session", params=MODES)
def acme_bin_directory(request: pytest.FixtureRequest, executables: Executables, acme_site: Path) -> Iterator[Path]:
    """Install the plugins, including acme-mtu, as executables."""
    with executables(mode=request.param, PYTHONPATH=str(acme_site)) as directory:
        yield directory


@pytest.fixture
def use_iptables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that selects a variant of iptables, "nft" or "legacy", as the machine's default."""

    def use(variant: str) -> None:
        programs = tmp_path / "programs"
        programs.mkdir()
        for family in ("iptables", "ip6tables"):
            for suffix in ("", "-restore", "-save"):
                (programs / f"{family}{suffix}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        # The legacy variant takes a lock for the whole machine.
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))

    return use


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.exhaustive)])
def iptables(request: pytest.FixtureRequest, use_iptables: Callable[[str], None]) -> str:
    """Select each variant of iptables as the machine's default."""
    use_iptables(request.param)
    return str(request.param)


def run_concurrently(host: Host, function: Callable[[Any], Any], items: Iterable[Any], threads: int = 16) -> list[Any]:
    """Call `function` with each item, in threads in the host's network namespace; return the results in order."""
    with ThreadPoolExecutor(threads, initializer=host.netns.enter_permanently) as pool:
        return list(pool.map(function, items))


def _pycni(*arguments: str | Path, **env: str) -> None:
    command = [sys.executable, "-P", "-m", "pycni", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
