"""Compare pycni.protocol with recorded answers of the Go library: names, versions, arguments, addresses, results."""

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol import cni_args, go_json, names, request, version
from pycni.protocol.address import parse_cidr
from pycni.protocol.conversion import VersionedResult, encode_result, parse_plugin_result
from pycni.protocol.errors import CniError, Code
from pycni.protocol.legacy import LegacyResult
from pycni.protocol.result import Result

ROWS = json.loads((Path(__file__).parents[1] / "data" / "library_vectors.json").read_text())["rows"]

DEVIATIONS = {"LV-prev-28": "integers stay exact"}


def rows_of(*ops: str) -> pytest.MarkDecorator:
    rows = [row for row in ROWS if row["op"] in ops and row["id"] not in DEVIATIONS]
    assert rows
    return pytest.mark.parametrize("row", rows, ids=lambda row: row["id"])


def row_called(name: str) -> dict[str, Any]:
    return next(row for row in ROWS if row["id"] == name)


@rows_of("valid_containerid", "valid_name", "valid_ifname")
def test_names_are_validated(row: dict[str, Any]) -> None:
    check = {
        "valid_containerid": names.check_container_id,
        "valid_name": names.check_network_name,
        "valid_ifname": names.check_ifname,
    }[row["op"]]
    expected = row["out"]["error"]
    if expected is None:
        check(row["in"]["v"])
        return
    with pytest.raises(CniError) as caught:
        check(row["in"]["v"])
    # The Go function ends one message with a colon that its plugins do not print
    # (docs/reference/protocol.md#network-name).
    assert (caught.value.code, caught.value.msg) == (expected["code"], expected["msg"].rstrip(":"))
    assert caught.value.details == expected["details"]


@rows_of("version_parse")
def test_versions_are_parsed(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(ValueError, match="invalid version"):
            version.parse(row["in"]["a"])
    else:
        assert list(version.parse(row["in"]["a"])) == row["out"]["parts"]


@rows_of("version_cmp")
def test_versions_are_compared(row: dict[str, Any]) -> None:
    a, b = row["in"]["a"], row["in"]["b"]
    if "error" in row["out"]:
        with pytest.raises(ValueError, match="invalid version"):
            version.at_least(a, b)
    else:
        assert version.at_least(a, b) is row["out"]["ge"]
        assert (not version.at_least(b, a)) is row["out"]["gt"]


@rows_of("decode_version")
def test_version_of_a_configuration_is_parsed(row: dict[str, Any]) -> None:
    def cni_version() -> str:
        document = request.decode_config(row["in"]["input"].encode())
        return go_json.select_members(document, ("cniVersion",)).get("cniVersion") or version.DEFAULT

    if "error" in row["out"]:
        with pytest.raises(CniError) as caught:
            cni_version()
        assert caught.value.code == Code.DECODING_FAILURE
    else:
        assert cni_version() == row["out"]["version"]


@rows_of("plugin_decode")
def test_version_reply_is_parsed(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(CniError, match="decoding version info: "):
            version.decode_reply(row["in"]["input"])
    else:
        assert list(version.decode_reply(row["in"]["input"])) == row["out"]["supported"]


@rows_of("load_args")
def test_cni_args_are_parsed(row: dict[str, Any]) -> None:
    # Go declares arguments as typed fields, of which some cannot be set from text. In pycni all arguments are strings.
    text, expected = row["in"]["args"], row["out"]
    if "Flag" in text or "Plain" in text:
        assert cni_args.parse(text, ("Flag", "Plain")) is not None
        return
    if "error" in expected:
        with pytest.raises(CniError) as caught:
            cni_args.parse(text, ("IP", "MAC", "K8S_POD_NAME"))
        assert caught.value.msg == expected["error"].replace(r"\n", "\n")
        return
    values = cni_args.parse(text, ("IP", "MAC", "K8S_POD_NAME"))
    assert {key: values.get(key, "") for key in ("IP", "MAC", "K8S_POD_NAME")} == {
        key: expected[key] for key in ("IP", "MAC", "K8S_POD_NAME")
    }


@rows_of("cidr")
def test_addresses_are_parsed(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(ValueError, match="invalid CIDR address"):
            parse_cidr(row["in"]["v"])
    else:
        assert str(parse_cidr(row["in"]["v"])) == json.loads(row["out"]["json"])


def previous_result(row: dict[str, Any]) -> VersionedResult | None:
    """Parse prevResult in a configuration as the SDK does, or return None if it is absent."""
    config = request.decode_config(row["in"]["input"].encode())
    known = go_json.select_members(config, ("cniVersion", "prevResult"))
    if "prevResult" not in known:
        return None
    return VersionedResult.parse_as(known["prevResult"], known.get("cniVersion", ""))


@rows_of("prevresult")
def test_previous_result_is_parsed(row: dict[str, Any]) -> None:
    expected = row["out"]
    if "error" in expected:
        with pytest.raises(ValueError, match=r"."):
            previous_result(row)
        return
    parsed = previous_result(row)
    if parsed is None:
        assert expected["prev"] is None
        return
    assert parsed.cni_version == expected["version"]
    assert go_json.dumps_compact(parsed.to_document(parsed.cni_version)) == expected["compact"]
    assert go_json.dumps_compact(encode_result(parsed.result, version.NEWEST)) == expected["as_current"]


def test_empty_version_in_a_previous_result_counts_as_absent() -> None:
    """Go treats null as absent and rejects the empty string; pycni treats both as absent.

    See docs/reference/protocol.md#previous-result.
    """
    for cni_version in ("", None):
        document = {"cniVersion": cni_version, "ips": [{"address": "10.0.0.2/24"}]}
        assert VersionedResult.parse_as(document, "1.0.0").cni_version == "1.0.0"


def test_integers_of_a_previous_result_stay_exact() -> None:
    assert previous_result(row_called("LV-prev-28")).result.routes[0].table == 9007199254740993


@rows_of("exec_result")
def test_output_of_a_plugin_is_parsed(row: dict[str, Any]) -> None:
    cni_version = json.loads(row["in"]["netconf"]).get("cniVersion", "")
    if "error" in row["out"]:
        with pytest.raises(ValueError, match=r"unsupported CNI result version|failed to unmarshal raw result"):
            parse_plugin_result(row["in"]["stdout"], cni_version)
        return
    parsed = parse_plugin_result(row["in"]["stdout"], cni_version)
    assert parsed.cni_version == row["out"]["version"]
    assert go_json.dumps_compact(parsed.to_document(parsed.cni_version)) == row["out"]["compact"]


@rows_of("construct_print")
def test_constructed_result_is_printed(row: dict[str, Any]) -> None:
    document = json.loads(row["in"]["input"])
    if row["in"]["kind"] == "100":
        made = VersionedResult(version.NEWEST, Result.parse(document, version.NEWEST))
    else:
        made = VersionedResult("0.2.0", LegacyResult.parse(document))
    if "error" in row["out"]:
        with pytest.raises(ValueError, match=row["out"]["error"]):
            made.to_document(row["in"]["target"])
    else:
        assert go_json.dumps_indented(made.to_document(row["in"]["target"])) == row["out"]["pretty"]


@rows_of("split_list")
def test_cni_path_is_split(row: dict[str, Any]) -> None:
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": row["in"]["v"]}
    assert list(request.Request.read(env, b'{"name": "n"}').path) == row["out"]["list"]
