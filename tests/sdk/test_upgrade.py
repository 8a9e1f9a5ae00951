"""Tests that calls get error 11 ("try again later") while pip replaces pycni."""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycni_plugins
import pytest

import pycni
from pycni.protocol import version
from pycni.sdk.stub import Stub

SITE_PACKAGES = sysconfig.get_path("purelib")
CONFIG = (
    b'{"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}}'
)


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the installed packages, from which tests remove files."""
    directory = tmp_path / "lib"
    for package in (pycni, pycni_plugins):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, directory / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def call(
    installation: Path, command: str = "ADD", *, interpreter: str = sys.executable, site: str = SITE_PACKAGES
) -> tuple[int, Any, str]:
    """Call the one-shot script of static; return exit status, response and stderr."""
    stub = Stub(
        "static", "pycni_plugins.static.plugin:Static", version.ALL, interpreter, (str(installation), site), False
    )
    script = installation.with_name("static")
    script.write_text(stub.script())
    script.chmod(0o755)
    env = {"CNI_CONTAINERID": "id", "CNI_NETNS": "/nowhere", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    env |= {"CNI_COMMAND": command} if command else {}
    done = subprocess.run([script], input=CONFIG, env=env, capture_output=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr.decode()


def remove(name: str) -> Callable[[Path], None]:
    return lambda installation: (installation / name).unlink()


def truncate(name: str) -> Callable[[Path], None]:
    return lambda installation: (installation / name).write_text("def half_a_fun")


STATES: dict[str, Callable[[Path], None]] = {
    "no package": lambda installation: shutil.rmtree(installation / "pycni"),
    "no plugin": lambda installation: shutil.rmtree(installation / "pycni_plugins" / "static"),
    "no entry point": remove("pycni/oneshot.py"),
    "no module that the entry point imports": remove("pycni/lazy_loading.py"),
    "no module of the SDK": remove("pycni/sdk/dispatch.py"),
    "no module that the plugin imports": remove("pycni/protocol/address.py"),
    "half a module of the SDK": truncate("pycni/sdk/lease.py"),
    "half a plugin": truncate("pycni_plugins/static/plugin.py"),
    "an older SDK": lambda installation: (installation / "pycni/sdk/__init__.py").write_text(""),
}


@pytest.mark.parametrize("state", STATES)
def test_call_during_an_upgrade_gets_error_11(installation: Path, state: str) -> None:
    STATES[state](installation)
    site = str(installation) if state == "no package" else SITE_PACKAGES  # SITE_PACKAGES contains pycni
    status, error, _ = call(installation, site=site)
    assert (status, error["code"], error["msg"]) == (1, 11, "pycni is being installed; try again")
    assert error["details"].endswith("; if no installation is running, install pycni again")


def test_copy_of_the_installation_works(installation: Path) -> None:
    status, result, _ = call(installation)
    assert (status, result["ips"]) == (0, [{"address": "10.1.0.2/24"}])


def test_missing_module_during_a_call_is_error_11(installation: Path) -> None:
    """Modules are loaded lazily: the first use of one can come after the old release was removed."""
    plugin = installation / "pycni_plugins" / "static" / "plugin.py"
    plugin.write_text(plugin.read_text() + "\nStatic.add = lambda self, cni: __import__('pycni.kernel.gone')\n")
    status, error, _ = call(installation)
    assert (status, error["code"]) == (1, 11)
    assert "No module named 'pycni.kernel.gone'" in error["details"]


def test_missing_interpreter_is_a_cni_error(installation: Path) -> None:
    status, error, _ = call(installation, interpreter="/nowhere/bin/python3")
    assert (status, error["code"]) == (1, 11)
    assert error["msg"] == "pycni's Python interpreter /nowhere/bin/python3 is missing"
    assert "run `pycni install`" in error["details"]


def test_failed_start_from_a_shell_shows_the_traceback(installation: Path) -> None:
    (installation / "pycni" / "oneshot.py").unlink()
    status, response, stderr = call(installation, "")
    assert (status, response) == (1, None)
    assert "ModuleNotFoundError: No module named 'pycni.oneshot'" in stderr
