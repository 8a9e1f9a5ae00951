"""libcni's test vectors for configurations: lists, plugin objects and directories."""

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol import go_json
from pycni.protocol.errors import CniError, ConfigError
from pycni.runtime import NetworkConfig, PluginConfig, discovery

ROWS = json.loads((Path(__file__).parents[1] / "data" / "library_vectors.json").read_text())["rows"]


def rows_of(op: dict[str, Any]) -> pytest.MarkDecorator:
    rows = [row for row in ROWS if row["op"] == op]
    assert rows
    return pytest.mark.parametrize("row", rows, ids=lambda row: row["id"])


def compact_json(document: Any) -> str:
    return go_json.dumps_compact(document, sort_keys=True)


def assert_same_plugins(plugins: Any, expected: Any) -> None:
    assert [plugin.type for plugin in plugins] == [entry["type"] for entry in expected]
    for plugin, entry in zip(plugins, expected, strict=True):
        assert (plugin.name, plugin.cni_version) == (entry["name"], entry["cniVersion"])
        declared = {name for name, wanted in (entry["capabilities"] or {}).items() if wanted}
        assert plugin.capabilities == declared


def assert_same_network(network: NetworkConfig, expected: Any) -> None:
    assert (network.name, network.cni_version) == (expected["name"], expected["cniVersion"])
    assert network.disable_check is expected["disableCheck"]
    assert network.disable_gc is expected["disableGC"]
    assert network.only_inlined_plugins is expected["loadOnlyInlinedPlugins"]
    assert_same_plugins(network.plugins, expected["plugins"])


@rows_of("parse_conflist")
def test_configuration_list(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(ConfigError, match=r"^error parsing configuration list: "):
            NetworkConfig.parse(row["in"]["input"])
        return
    network = NetworkConfig.parse(row["in"]["input"])
    assert_same_network(network, row["out"])
    assert network.raw.decode() == row["in"]["input"]
    if row["id"] != "LV-list-numbers-01":  # docs/reference/protocol.md#numbers: they stay as written
        assert [compact_json(plugin.document) for plugin in network.plugins] == [
            entry["bytes"] for entry in row["out"]["plugins"]
        ]


def test_large_integers_are_exact() -> None:
    (row,) = [row for row in ROWS if row["id"] == "LV-list-numbers-01"]
    document = NetworkConfig.parse(row["in"]["input"]).plugins[0].document
    assert (document["big"], document["i64"]) == (9007199254740993, 123456789012345678901234567890)


@rows_of("parse_plugin")
def test_plugin_configuration(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(ConfigError, match=r"^error parsing configuration: "):
            PluginConfig.parse(row["in"]["input"])
        return
    plugin = PluginConfig.parse(row["in"]["input"])
    expected = json.loads(row["out"]["marshalled"])
    assert plugin.type == expected["type"]
    assert plugin.capabilities == {name for name, wanted in expected.get("capabilities", {}).items() if wanted}


@rows_of("inject")
def test_values_are_inserted_into_a_plugin_configuration(row: dict[str, Any]) -> None:
    def injected() -> PluginConfig:
        document = json.loads(row["in"]["input"])
        start = PluginConfig(type="", document=document)
        return start.with_values(row["in"]["values"])

    if "error" in row["out"]:
        with pytest.raises((ValueError, ConfigError), match=row["out"]["error"]):
            injected()
    else:
        assert injected().raw.decode() == row["out"]["bytes"]


@rows_of("upconvert")
def test_single_plugin_is_converted_to_a_list(row: dict[str, Any]) -> None:
    if "error" in row["out"]:
        with pytest.raises(ConfigError, match="missing 'type'"):
            PluginConfig.parse(row["in"]["input"])
        return
    network = NetworkConfig.from_plugin(PluginConfig.parse(row["in"]["input"]))
    assert_same_network(network, row["out"])
    assert network.raw.decode() == row["out"]["bytes"]


@rows_of("load")
def test_network_is_found_in_its_directory(row: dict[str, Any], tmp_path: Path) -> None:
    for name, content in row["in"]["files"].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    directory = tmp_path / row["in"].get("subdir", "")
    if "error" in row["out"]:
        with pytest.raises(CniError) as caught:
            discovery.find_network(directory, row["in"]["name"])
        expected = row["out"]["error"].replace("{dir}", str(tmp_path))
        if "invalid character" in expected:  # the message of the JSON decoder differs
            expected = expected.partition(": invalid character")[0]
        assert caught.value.msg.startswith(expected)
        return
    network = discovery.find_network(directory, row["in"]["name"])
    assert_same_network(network, row["out"])
    assert network.raw.decode() == row["out"]["bytes"]


@rows_of("conf_files")
def test_files_are_listed_in_byte_order(row: dict[str, Any], tmp_path: Path) -> None:
    for name in row["in"]["files"]:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("")
    found = discovery.files(tmp_path, *row["in"]["exts"])
    assert [file.name for file in found] == row["out"]["files"]
