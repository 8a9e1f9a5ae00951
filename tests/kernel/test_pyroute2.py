"""pyroute2 is imported in part, and completely when a plugin imports it."""

import subprocess
import sys

import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_netlink_imports_only_the_messages() -> None:
    count = "sum(name.startswith('pyroute2') for name in sys.modules)"
    code = f"import sys, pycni.kernel.netlink.rtnetlink; print({count}, 'asyncio' in sys.modules)"
    count, asyncio = python(code).split()
    assert int(count) < 90
    assert asyncio == "False"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "use",
    [
        "from pyroute2 import IPRoute, netns; print(IPRoute.__name__)",
        "import pyroute2; print(pyroute2.IPRoute.__name__)",
        "from pyroute2.iproute import IPRoute; print(IPRoute.__name__)",
        "import pyroute2.netns; print(pyroute2.IPRoute.__name__)",
    ],
)
@pytest.mark.parametrize("first", ["import pycni.kernel.netlink.rtnetlink", "pass"])
def test_plugin_that_imports_pyroute2_gets_all_of_it(first: str, use: str) -> None:
    assert python(f"{first}; {use}; import pycni.kernel.netlink.rtnetlink") == "IPRoute"


def test_missing_names_raise_import_error() -> None:
    code = """
import pycni.kernel.netlink.rtnetlink
try:
    from pyroute2 import Nonsense
except ImportError as error:
    print(error.name)
"""
    assert python(code) == "pyroute2"
