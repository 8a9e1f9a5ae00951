"""Tests of lazy loading in one-shot processes. Each runs in its own process, because it changes how modules load."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, typing
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "true"
from pycni import lazy_loading

lazy_loading.defer()
import typing_extensions

before = typing.TypedDict, typing_extensions.TypedDict
from pydantic_core import core_schema
from pycni.sdk import NetConf

class Conf(NetConf):
    mtu: int

made = core_schema.CoreConfig(title="a title")
assert type(made) is dict and made == {"title": "a title"}, made
assert not hasattr(core_schema.CoreConfig, "__required_keys__")  # a real TypedDict has this attribute
assert before == (typing.TypedDict, typing_extensions.TypedDict)
assert Conf.read({"name": "n", "MTU": 1}).mtu == 1
assert "hmac" not in sys.modules
import secrets

assert len(secrets.token_hex(4)) == 8
assert "hmac" in sys.modules

import dataclasses, inspect
from pycni.protocol.result import Dns, Interface

@dataclasses.dataclass(frozen=True)
class Foreign:
    size: int

assert str(inspect.signature(Foreign)) == "(size: int) -> None"  # dataclasses of other packages are unchanged
eth0 = Interface("eth0", mtu=1500)
assert eth0 == Interface(name="eth0", mtu=1500) != Interface("eth1"), eth0
assert repr(Dns(search=("a.",))) == "Dns(nameservers=(), domain='', search=('a.',), options=())"
assert len({eth0, Interface("eth0", mtu=1500)}) == 1
try:
    eth0.mtu = 1
except dataclasses.FrozenInstanceError:
    pass
else:
    raise AssertionError("Interface is not frozen")
try:
    Interface()
except TypeError as error:
    assert "missing 1 required positional argument: 'name'" in str(error), error
else:
    raise AssertionError("Interface() does not require a name")
"""


def test_modules_load_at_first_use_and_typed_dicts_are_replaced() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


LOGGING = """
import sys
from pycni import lazy_loading, lazy_logging

lazy_loading.defer()
lazy_logging.defer()
import logging

log = logging.getLogger("one")
log.debug("not %s", "shown")
log.info("neither")
assert "traceback" not in sys.modules
if sys.argv[1:]:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
log.info("at level %s", "info")
logging.getLogger("two").warning("at level %s", "warning")
try:
    1 / 0
except ZeroDivisionError:
    log.error("failed", exc_info=True)
assert log.name == "one" and isinstance(log, object)
import logging.handlers
assert sys.modules["logging"].getLogger("one").level == logging.NOTSET
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ["at level warning", "failed"]),
        (["configured"], ["INFO one: at level info", "WARNING two: at level warning", "ERROR one: failed"]),
    ],
)
def test_logging_loads_at_the_first_record(arguments: list[str], shown: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{LOGGING}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith(("Traceback", " ", "ZeroDivisionError"))] == shown
    assert "ZeroDivisionError: division by zero" in lines
