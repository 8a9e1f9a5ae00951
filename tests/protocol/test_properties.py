"""Property tests: for any input, pycni.protocol returns a value or raises its own error with a message."""

import json
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pycni.protocol import cni_args, go_json, version
from pycni.protocol.address import parse_cidr, parse_ip
from pycni.protocol.conversion import VersionedResult, encode_result, parse_plugin_result
from pycni.protocol.errors import CniError
from pycni.protocol.request import VERBS, Request
from pycni.protocol.result import Dns, Interface, IpConfig, Result, Route

# ---------------------------------------------------------------- arbitrary input

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
versions = st.sampled_from(["", *version.ALL, "1.0", "9.9.9", "abc"])
# Nearly valid objects: known keys, some with unusual case, and values of the wrong type.
KEYS = (
    *(
        "cniVersion",
        "CNIVERSION",
        "name",
        "ips",
        "IPs",
        "interfaces",
        "routes",
        "dns",
        "ip4",
        "ip6",
        "address",
        "gateway",
        "ntp",
    ),
    *("dst", "gw", "mtu", "interface", "version", "nameservers", "code", "msg", "details", "supportedVersions"),
)
nearly_valid = st.recursive(
    st.none() | st.integers() | versions | st.sampled_from(["10.0.0.1/24", "::1/128", "10.0.0.1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=15,
)
json_texts = (anything | nearly_valid).map(json.dumps)
payloads = st.binary() | json_texts.map(str.encode) | json_texts.map(lambda text: text.encode("utf-16"))
# Values that os.environ can hold: no NUL, and bytes that are not UTF-8 as surrogates.
env_values = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
environments = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from([*VERBS, "add", ""]) | env_values},
    optional={
        name: st.sampled_from(["c1", "eth0", "/opt/cni/bin"]) | env_values
        for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE")
    },
)


def check_error_document(error: CniError) -> dict[str, Any]:
    """Return the error as the caller receives it."""
    document = json.loads(error.to_json().encode())
    assert set(document) <= {"code", "msg", "details"}
    assert document["msg"]
    return document


def check_message(error: CniError) -> None:
    assert str(error)


@given(environments, payloads)
@example({"CNI_COMMAND": "GC", "CNI_PATH": "/"}, b'{"name":"n"}' * 2)
@example({"CNI_COMMAND": "GC", "CNI_PATH": "/"}, b"[" * 100_000)
@example({"CNI_COMMAND": "GC", "CNI_PATH": "/"}, b'{"name":"n","x":' + b"9" * 5000 + b"}")
@example(
    {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "\udcff", "CNI_IFNAME": "e", "CNI_NETNS": "/", "CNI_PATH": "/"}, b"{}"
)
@example({"CNI_COMMAND": "\udcff", "CNI_PATH": "/"}, b'{"name":"n"}')
def test_request_is_parsed_or_rejected(env: dict[str, str], stdin: bytes) -> None:
    try:
        request = Request.read(env, stdin)
    except CniError as error:
        check_error_document(error)
    else:
        assert request.command in VERBS
        assert request.network


@given(payloads, versions)
def test_output_of_a_plugin_is_parsed_or_rejected(stdout: bytes, cni_version: str) -> None:
    try:
        parsed = parse_plugin_result(stdout, cni_version)
    except ValueError as error:
        check_message(error)
    else:
        assert parsed.cni_version in version.ALL


@given(anything | nearly_valid, versions, versions)
def test_result_is_converted_or_rejected(document: Any, asked: str, target: str) -> None:
    try:
        made = VersionedResult.parse_as(document, asked).to_document(target)
    except ValueError as error:
        check_message(error)
    else:
        assert VersionedResult.parse(json.loads(go_json.dumps_compact(made))).to_document(target) == made


@given(payloads)
def test_version_reply_is_parsed_or_rejected(stdout: bytes) -> None:
    try:
        supported = version.decode_reply(stdout)
    except CniError as error:
        check_error_document(error)
    else:
        assert all(isinstance(text, str) for text in supported)


@given(anything | nearly_valid)
def test_error_object_is_parsed_or_rejected(document: Any) -> None:
    if not isinstance(document, dict):
        return
    try:
        error = CniError.from_json(document)
    except ValueError as refusal:
        check_message(refusal)
    else:
        assert json.loads(error.to_json().encode())["code"] == error.code


@given(st.text() | env_values | st.from_regex(r"(IgnoreUnknown=(1|true|yes)|IP=[a-z]*|[A-Z]*=?)(;.{0,5})*"))
def test_cni_args_are_parsed_or_rejected(text: str) -> None:
    lenient = cni_args.parse_leniently(text)
    try:
        strict = cni_args.parse(text, ("IP", "MAC"))
    except CniError as error:
        check_error_document(error)
    else:
        assert set(strict) <= {"IP", "MAC"}
        assert strict.items() <= lenient.items()


@given(st.text() | anything | st.from_regex(r"[0-9a-f.:]{1,20}(/[0-9]{1,4})?", fullmatch=True))
def test_addresses_are_parsed_or_rejected(value: Any) -> None:
    for parse in (parse_ip, parse_cidr):
        try:
            parsed = parse(value)
        except ValueError as error:
            check_message(error)
        else:
            assert parse(str(parsed)) == parsed


@given(st.text() | st.from_regex(r"[+-]?[0-9]{1,25}(\.[+-]?[0-9]{0,3}){0,4}", fullmatch=True))
@example("9" * 5000)
def test_versions_are_parsed_or_rejected(text: str) -> None:
    try:
        numbers = version.parse(text)
    except ValueError as error:
        check_message(error)
    else:
        assert len(numbers) == 3


# ---------------------------------------------------------------- round trips

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(0, 2**32 - 1)
v4 = st.builds(lambda ip, prefix: IPv4Interface((ip, prefix)), st.ip_addresses(v=4), st.integers(0, 32))
v6 = st.builds(
    lambda ip, prefix: IPv6Interface((ip, prefix)),
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None),
    st.integers(0, 128),
)
gateways = st.none() | v4.map(lambda cidr: ip_address(cidr.ip)) | v6.map(lambda cidr: ip_address(cidr.ip))
results = st.builds(
    Result,
    interfaces=st.lists(
        st.builds(Interface, words, mac=words, mtu=numbers, sandbox=words, socket_path=words, pci_id=words), max_size=3
    ).map(tuple),
    ips=st.lists(st.builds(IpConfig, v4 | v6, gateways, st.none() | st.integers(-1, 5)), max_size=4).map(tuple),
    routes=st.lists(
        st.builds(
            Route, v4 | v6, gateways, mtu=numbers, advmss=numbers, priority=numbers, table=st.none() | numbers,
            scope=st.none() | st.integers(0, 255),
        ),
        max_size=4,
    ).map(tuple),
    dns=st.builds(Dns, st.lists(words).map(tuple), words, st.lists(words).map(tuple), st.lists(words).map(tuple)),
    ntp=st.lists(gateways.filter(lambda server: server is not None), max_size=2).map(tuple),
)  # fmt: skip


def round_trip(result: Result, cni_version: str) -> Result:
    text = go_json.dumps_indented(encode_result(result, cni_version))
    return VersionedResult.parse(json.loads(text.encode())).result


@given(results, st.sampled_from(["1.0.0", "1.1.0"]))
def test_versions_1_0_0_and_later_preserve_the_whole_result(result: Result, cni_version: str) -> None:
    assert round_trip(result, cni_version) == result


@given(results, st.sampled_from(["0.3.0", "0.3.1", "0.4.0"]))
def test_versions_0_3_0_to_0_4_0_drop_the_interface_members_of_1_0_0(result: Result, cni_version: str) -> None:
    plain = tuple(replace(interface, mtu=0, socket_path="", pci_id="") for interface in result.interfaces)
    assert round_trip(result, cni_version) == replace(result, interfaces=plain)


@pytest.mark.parametrize("value", [None, "10.0.0.9", {"servers": ["10.0.0.9"]}, [9], ["ntp.example.org"], [], True])
def test_ntp_member_of_another_type_is_ignored(value: Any) -> None:
    document = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}
    made = VersionedResult.parse_as(document | {"ntp": value}, "1.1.0")
    assert made.to_document("1.1.0") == document


@given(results, st.sampled_from(["0.1.0", "0.2.0"]))
def test_versions_0_1_0_and_0_2_0_keep_one_address_of_each_family(result: Result, cni_version: str) -> None:
    if not result.ips:
        with pytest.raises(ValueError, match="no valid IP addresses"):
            encode_result(result, cni_version)
        return
    families = {ip.address.version: ip for ip in reversed(result.ips)}
    kept = Result(
        ips=tuple(replace(families[family], interface=None) for family in (4, 6) if family in families),
        routes=tuple(
            Route(route.dst, route.gw)
            for family in (4, 6)
            if family in families
            for route in result.routes
            if route.dst.version == family
        ),
        dns=result.dns,
    )
    assert round_trip(result, cni_version) == kept
