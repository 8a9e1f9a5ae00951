"""What tests of executables share, and what they ask of the kernel."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pycni.kernel.link.links import Links
from pycni.protocol.errors import CniError
from pycni.testing import wait_for
from pycni.testing.topology import Netns

# How long an example takes depends on what else the machine does.
settings.register_profile("pycni", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pycni")

_TRIED = "inputs tried"
ACME = Path(__file__).with_name("third_party") / "acme_mtu"


# Each day through the server alone, which takes a tenth of the time.
WAYS = [pytest.param("one-shot", marks=pytest.mark.exhaustive), "served"]
Executables = Callable[..., AbstractContextManager[Path]]

# Python runs this at its start. An import is audited only where the module is not there yet.
_SITECUSTOMIZE = """
import sys, threading

def write_down(line):
    with open({log!r}, "a") as file:
        file.write(line + "\\n")

def look(event, args):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        write_down(args[0])

if "serve" in sys.orig_argv:
    write_down("looking")
    sys.addaudithook(look)
"""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only tests with needs_kernel are wanted, import no file without: in the guest that takes its time."""
    if config.option.markexpr == "needs_kernel" and collection_path.name.startswith("test_"):
        sources = [source for source in (collection_path, collection_path.with_name("conftest.py")) if source.exists()]
        return None if any("needs_kernel" in source.read_text() for source in sources) else True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs another kernel goes one way: the guest is slow, and what a server changes shows in all the others."""
    again = [item for item in items if item.get_closest_marker("needs_kernel") and _is_served(item)]
    if again:
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in again]


def _is_served(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)  # of a test with parameters
    return call is not None and "served" in call.params.values()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this kernel cannot do; scripts/test --guest does it in one that can."""
    wanted = [feature for marker in item.iter_markers("needs_kernel") for feature in marker.args]
    try:
        missing = [feature for feature in wanted if not _kernel_has(feature)]
    except OSError as error:
        pytest.skip(f"needs root, or `unshare -Urnm`: {error}")
    if missing:
        pytest.skip(f"needs a kernel with {', '.join(missing)}")


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Counts what a fuzzing test puts in, by what it is; the counts are said at the end of the run."""
    inputs: dict[str, int] = {}
    record_property(_TRIED, inputs)

    def count(what: str) -> None:
        inputs[what] = inputs.get(what, 0) + 1

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many inputs were tried."""
    inputs = Counter[str]()
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        inputs.update(*(counts for name, counts in report.user_properties if name == _TRIED))
    for what, count in sorted(inputs.items()):
        terminalreporter.write_line(f"fuzzing: {count} {what}")


@pytest.fixture
def audited(tmp_path: Path) -> Callable[[Path], Callable[[], list[str]]]:
    """Lets the server with this directory on its PYTHONPATH write down what calls load; gives the way to read it."""
    log = tmp_path / "imports"

    def loaded() -> list[str]:
        began, *modules = log.read_text().split()
        assert began == "looking"
        return modules

    def audit(modules: Path) -> Callable[[], list[str]]:
        (modules / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(log=str(log)))
        return loaded

    return audit


@pytest.fixture
def other_users() -> None:
    """There are other users than root, to give things to."""
    if sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()) == 1:
        pytest.skip("needs other users than root; `unshare -Urnm` has none")


@pytest.fixture
def kernel_has() -> Callable[[str], bool]:
    """Whether the kernel has a feature: a kind of links, or "bridge VLAN filtering", "sctp", "selinux".

    Or the machine: network "cards" to spare.
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


@pytest.fixture(scope="session", params=WAYS)
def bin_directory(request: pytest.FixtureRequest, executables: Executables) -> Iterator[Path]:
    """Every plugin of this installation, as executables: without a server, and with one."""
    with executables(way=request.param) as directory:
        yield directory


@pytest.fixture(autouse=True)
def nobody_went_past_the_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """A launcher that cannot use its server says nothing, so the scripts that it starts then write their names down.

    The mark `one_shot` is for calls that a server rightly refuses.
    """
    asked = {"bin_directory", "acme_bin_directory"} & set(request.fixturenames)
    logs = [request.getfixturevalue(name).with_name("oneshot.log") for name in asked]
    yield
    for log in filter(Path.exists, logs):
        started = log.read_text()
        log.unlink()
        assert request.node.get_closest_marker("one_shot"), f"not answered by the server: {started}"


@pytest.fixture(scope="session")
def executables(tmp_path_factory: pytest.TempPathFactory) -> Executables:
    """Installs every plugin into a directory: without a server, with one, or for one that the test starts itself."""

    @contextmanager
    def install(*, way: str, socket: Path | None = None, before_server: Sequence[str | Path] = (), **env: str) -> Any:
        """`before_server` is a command that starts the server; if the test does, with its socket at `socket`, the
        command for that is in the file `serve` beside the directory.
        """
        directory = tmp_path_factory.mktemp("cni") / "bin"
        place = directory.with_name("pycni.sock") if socket is None else socket
        state = directory.with_name("state")
        _pycni("install", directory, "--state-dir", state, "--socket", place, "--no-server", **env)
        if way == "one-shot":
            yield directory
            return
        scripts = list((state / "oneshot").glob("*/*/*"))
        if not scripts:
            pytest.skip("needs the compiled launcher: a C compiler when pycni was installed")
        for script in scripts:
            _let_it_write_its_name_down(script, directory.with_name("oneshot.log"))
        variables = [f"{name}={value}" for name, value in (env | {"PYTHONSAFEPATH": "1"}).items()]
        serve = ["env", *variables, sys.executable, "-P", "-m", "pycni", "serve", "--socket", str(place)]
        if socket is not None:
            directory.with_name("serve").write_text(shlex.join(serve))
            yield directory
            return
        with _served(directory, [*before_server, *serve]):
            yield directory

    return install


def _let_it_write_its_name_down(script: Path, log: Path) -> None:
    shell_begins = "''':'\n"
    text = script.read_text()
    assert shell_begins in text
    script.write_text(text.replace(shell_begins, f"{shell_begins}echo {script.name} $CNI_COMMAND >>{log}\n", 1))


@contextmanager
def _served(directory: Path, serve: Sequence[str | Path]) -> Iterator[None]:
    said = directory.with_name("server.log")
    with said.open("wb") as log:
        server = subprocess.Popen(serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    directory.with_name("server.pid").write_text(str(server.pid))
    try:
        wait_for(lambda: "serving at" in said.read_text() or server.poll() is not None, "the server", seconds=60)
        assert server.poll() is None, said.read_text()
        yield
        server.terminate()
        assert server.wait(60) == 0, said.read_text()
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which pip has installed acme-mtu: a plugin of somebody else's, in its own distribution."""
    source = tmp_path_factory.mktemp("source") / "acme_mtu"
    shutil.copytree(ACME, source)
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session", params=WAYS)
def acme_bin_directory(request: pytest.FixtureRequest, executables: Executables, acme_site: Path) -> Iterator[Path]:
    """What `pycni install` makes where acme-mtu is installed too."""
    with executables(way=request.param, PYTHONPATH=str(acme_site)) as directory:
        yield directory


@pytest.fixture
def use_iptables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a variant of iptables, "nft" or "legacy", the one that the machine has chosen."""

    def use(variant: str) -> None:
        programs = tmp_path / "programs"
        programs.mkdir()
        for family in ("iptables", "ip6tables"):
            for suffix in ("", "-restore", "-save"):
                (programs / f"{family}{suffix}").symlink_to(f"/usr/sbin/xtables-{variant}-multi")
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        # The legacy one takes a lock for the whole machine.
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))

    return use


@pytest.fixture(params=["nft", pytest.param("legacy", marks=pytest.mark.exhaustive)])
def iptables(request: pytest.FixtureRequest, use_iptables: Callable[[str], None]) -> str:
    """Both variants of iptables, each as the one that the machine has chosen."""
    use_iptables(request.param)
    return str(request.param)


def _pycni(*arguments: str | Path, **env: str) -> None:
    command = [sys.executable, "-P", "-m", "pycni", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
