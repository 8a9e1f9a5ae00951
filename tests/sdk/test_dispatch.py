"""Tests of one call: any input gets a CNI answer."""

import json
import os
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.protocol import version
from pycni.protocol.request import VERBS
from pycni.sdk import Attachment, CniError, Interface, NetConf, Plugin, Result, registry
from pycni.sdk.dispatch import handle_call
from pycni.sdk.invoke import invoke
from pycni.testing import Container, Host

PLUGINS = registry.names()
COMMON = ("bridge", "host-local", "portmap")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
KEYS = """
name NAME cniVersion type bridge mtu vlan vlanTrunk isGateway ipMasq macspoofchk ipam dns args prevResult runtimeConfig
capabilities cni.dev/valid-attachments
"""
known_keys = st.sampled_from(KEYS.split())
configs = st.fixed_dictionaries(
    {"name": st.just("net") | texts, "cniVersion": st.sampled_from(version.ALL) | texts},
    optional={},
).flatmap(lambda base: st.dictionaries(known_keys | texts, json_values, max_size=8).map(lambda more: {**more, **base}))
stdins = st.binary(max_size=60) | configs.map(lambda config: json.dumps(config).encode())
environments = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from(VERBS) | texts},
    optional={
        "CNI_CONTAINERID": st.just("id") | texts,
        "CNI_NETNS": st.just("/nowhere") | texts,
        "CNI_IFNAME": st.just("eth0") | texts,
        "CNI_PATH": st.just("/nowhere") | texts,
        "CNI_ARGS": st.just("IgnoreUnknown=1;A=b") | texts,
        "CNI_NETNS_OVERRIDE": st.just("1"),
    },
)


@pytest.mark.parametrize(
    "plugin", [name if name in COMMON else pytest.param(name, marks=pytest.mark.exhaustive) for name in PLUGINS]
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(env=environments, stdin=stdins)
def test_any_input_gets_a_cni_answer(
    host: Host, count_input: Callable[[str], None], plugin: str, env: dict[str, str], stdin: bytes
) -> None:
    count_input("calls with any environment and configuration")
    reply = handle_call(plugin, registry.load(plugin), env, stdin, invoke)
    assert reply.status in (0, 1)
    if reply.status == 1:
        error = json.loads(reply.stdout)
        assert {"code", "msg", "cniVersion"} <= set(error) <= {"code", "msg", "cniVersion", "details"}
        assert isinstance(error["code"], int)
        assert error["msg"]
        reply.stdout.encode()
    elif reply.stdout:
        assert isinstance(json.loads(reply.stdout), dict)


class Odd(Plugin[NetConf]):
    """A plugin whose behaviour dns.domain in its configuration selects."""

    steps: ClassVar[list[str]] = []

    def add(self, cni: Attachment[NetConf]) -> Result:
        match cni.config.dns.domain:
            case "raise":
                raise KeyError("eth9")
            case "exit":
                raise SystemExit(0)
            case "recurse":
                return self.add(cni)
            case "memory":
                raise MemoryError
            case "note":
                error = CniError("no", code=101, details="because")
                error.add_note("while: trying")
                raise error
            case "no addresses":
                return Result((Interface("eth0"),))
            case "none" | "document" as kind:
                cni.journal.change("step", lambda: self.steps.append("done"), lambda: self.steps.append("undone"))
                return None if kind == "none" else {"ips": []}  # type: ignore[return-value]
        return Result()

    def check(self, cni: Attachment[NetConf]) -> None:
        """Do nothing."""

    def delete(self, cni: Attachment[NetConf]) -> None:
        cni.journal.attempt("one", lambda: (_ for _ in ()).throw(OSError("first")))
        cni.journal.attempt("two", lambda: (_ for _ in ()).throw(CniError("second", code=11)))
        cni.journal.attempt("three", lambda: None)


def call(command: str, **config: Any) -> tuple[int, Any]:
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": "/nowhere",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "n", **config}).encode()
    reply = handle_call("odd", Odd, env, stdin, invoke)
    return reply.status, json.loads(reply.stdout or "null")


@pytest.mark.parametrize("what", ["raise", "exit", "recurse", "memory"])
def test_exception_in_a_plugin_is_a_cni_error(what: str) -> None:
    status, error = call("ADD", dns={"domain": what})
    assert status == 1
    assert error["code"] == 999
    assert error["msg"]


@pytest.mark.parametrize(("what", "returned"), [("none", "NoneType"), ("document", "dict")])
def test_add_without_a_result_names_the_plugin_and_the_type_to_return(what: str, returned: str) -> None:
    Odd.steps.clear()
    status, error = call("ADD", dns={"domain": what})
    assert (status, error["code"]) == (1, 999)
    assert error["msg"] == f"{__name__}.Odd.add returned {returned}, not a Result"
    assert "pycni.sdk.Result" in error["details"]
    assert Odd.steps == ["done", "undone"]


def test_error_has_code_message_details_and_version() -> None:
    status, error = call("ADD", dns={"domain": "note"}, cniVersion="1.0.0")
    assert (status, error) == (
        1,
        {"cniVersion": "1.0.0", "code": 101, "msg": "no", "details": "because; while: trying"},
    )


def test_result_that_the_version_cannot_express_is_an_error() -> None:
    status, error = call("ADD", dns={"domain": "no addresses"}, cniVersion="0.2.0")
    assert (status, error["msg"]) == (1, "cannot convert: no valid IP addresses")


def test_delete_continues_after_errors_and_reports_all_of_them() -> None:
    status, error = call("DEL")
    assert (status, error["msg"]) == (1, "first")
    assert error["details"] == "while: one; second; while: two"


def test_call_without_command_prints_name_and_versions() -> None:
    reply = handle_call("odd", Odd, {}, b"", invoke)
    assert (reply.status, reply.stdout) == (0, "")
    first, second = reply.stderr.splitlines()
    # nerdctl parses everything after "plugin " as a semantic version, which has to be 1.7.1 or more.
    release = re.fullmatch(r"CNI odd plugin v(\d+)\.(\d+)\.(\d+)\+pycni\.[0-9A-Za-z.-]+", first)
    assert release is not None, first
    assert tuple(map(int, release.groups())) >= (1, 7, 1)
    assert second == f"CNI protocol versions supported: {', '.join(version.ALL)}"


def test_netns_override_allows_the_callers_own_namespace(container: Container) -> None:
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "id",
        "CNI_NETNS": f"/proc/{os.getpid()}/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    stdin = b'{"cniVersion": "1.1.0", "name": "n"}'
    assert handle_call("odd", Odd, env, stdin, invoke).status == 1
    assert handle_call("odd", Odd, {**env, "CNI_NETNS_OVERRIDE": "true"}, stdin, invoke).status == 0
