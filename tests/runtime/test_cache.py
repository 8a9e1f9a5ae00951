"""The cache: libcni's files are read and written, names are validated, and unreadable files are kept."""

import json
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycni.protocol.errors import CniError, ConfigError
from pycni.runtime import Cache, NetworkConfig, PluginConfig, PluginError, RuntimeConf, UnreadableEntryError

if TYPE_CHECKING:
    from tests.runtime.conftest import Recorders

FAILURE = {"stdout": {"code": 107, "msg": "failed", "details": "why"}, "exit": 1}
RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}


@pytest.mark.parametrize(
    "content",
    [
        "{bad",
        "[]",
        '{"kind": "other"}',
        '{"kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "n", "result": []}',
        '{"kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "n", "config": "%%%"}',
        json.dumps({"kind": "cniCacheV1", "result": {"cniVersion": "1.0.0", "ips": [{"address": "x"}]}}),
        json.dumps({"kind": "cniCacheV1", "result": {"cniVersion": "9.9.9"}}),
    ],
)
def test_del_moves_an_unreadable_entry_aside(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf, content: bytes
) -> None:
    recorders.write_entries({"n-c1-eth0": content})
    runtime = recorders.runtime()
    with pytest.raises(CniError, match='failed to get network "n" cached result'):
        runtime.check_network_list(chain, eth0)
    assert recorders.verbs() == []
    runtime.delete_network_list(chain, eth0)
    assert [json.loads(call["stdin"]).get("prevResult") for call in recorders.calls()] == [None] * 3
    assert recorders.entries() == {}
    assert (recorders.cache / "results.corrupt" / "n-c1-eth0").read_text() == content


def test_entry_without_a_result_yields_no_prev_result(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    """libcni converts it to an empty result of version 0.1.0."""
    runtime = recorders.runtime()
    runtime.add_network_list(replace(chain, plugins=()), eth0)
    assert "result" not in recorders.entries()["n-c1-eth0"]
    runtime.check_network_list(chain, eth0)
    assert all("prevResult" not in json.loads(call["stdin"]) for call in recorders.calls())


@pytest.mark.parametrize(("container_id", "ifname"), [("../../c1", "eth0"), ("c1", "../x"), ("c1", ""), ("", "eth0")])
def test_invalid_names_are_not_used_in_paths(
    recorders: "Recorders", chain: NetworkConfig, container_id: str, ifname: str
) -> None:
    """With libcni, DEL can delete and CHECK can read a file anywhere."""
    outside = recorders.cache / "c1-eth0"
    recorders.write_entries({})
    outside.write_text("{}")
    parameters = RuntimeConf(container_id, ifname=ifname)
    runtime = recorders.runtime()
    runtime.delete_network_list(chain, parameters)
    assert recorders.verbs() == ["p3 DEL", "p2 DEL", "p1 DEL"]
    with pytest.raises(CniError, match="cache file path requires"):
        runtime.check_network_list(chain, parameters)
    with pytest.raises(CniError):
        runtime.add_network_list(chain, parameters)
    assert recorders.verbs() == []
    assert outside.exists()


def test_network_name_with_a_path_is_refused_by_add(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    network = replace(chain, name="../results/x")
    recorders.runtime().delete_network_list(network, eth0)
    with pytest.raises(CniError, match="invalid characters found in network name"):
        recorders.runtime().add_network_list(network, eth0)


# ---------------------------------------------------------------- files


def test_cache_is_private_and_contains_only_entries(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    for _ in range(2):
        recorders.runtime().add_network_list(chain, eth0)
    results = recorders.cache / "results"
    assert stat.S_IMODE(results.stat().st_mode) == 0o700
    assert stat.S_IMODE((results / "n-c1-eth0").stat().st_mode) == 0o600
    assert sorted(file.name for file in recorders.cache.iterdir()) == ["results"]
    assert sorted(file.name for file in results.iterdir()) == ["n-c1-eth0"]


def test_entry_is_identical_to_libcnis(recorders: "Recorders", eth0: RuntimeConf) -> None:
    network = NetworkConfig.parse('{"name":"n","cniVersion":"0.4.0","plugins":[{"type":"p1"}]}')
    parameters = replace(eth0, args=(("A", "<b>"),), capability_args={"b": 1, "a": {"d": None, "c": "é"}})
    recorders.runtime().add_network_list(network, parameters)
    assert (recorders.cache / "results" / "n-c1-eth0").read_text(encoding="utf-8") == (
        '{"kind":"cniCacheV1","containerId":"c1",'
        '"config":"eyJuYW1lIjoibiIsImNuaVZlcnNpb24iOiIwLjQuMCIsInBsdWdpbnMiOlt7InR5cGUiOiJwMSJ9XX0=",'
        '"ifName":"eth0","networkName":"n","netns":"/run/netns/x","cniArgs":[["A","\\u003cb\\u003e"]],'
        '"capabilityArgs":{"a":{"c":"é","d":null},"b":1},'
        '"result":{"cniVersion":"0.4.0","dns":{},"ips":[{"address":"10.9.0.2/24","version":"4"}]}}'
    )


def test_entry_is_kept_if_the_requested_version_cannot_represent_it(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    """DEL is called without prevResult."""
    entry = {"kind": "cniCacheV1", "containerId": "c1", "ifName": "eth0", "networkName": "n", "result": RESULT}
    recorders.write_entries({"n-c1-eth0": entry})
    recorders.script(p1={"DEL": FAILURE})
    with pytest.raises(PluginError):
        recorders.runtime().delete_network_list(replace(chain, cni_version="9.9.9"), eth0)
    assert list(recorders.entries()) == ["n-c1-eth0"]
    assert recorders.runtime().cached_result(chain, eth0).to_document("1.1.0") == RESULT


# ---------------------------------------------------------------- arbitrary content

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["cniCacheV1", "1.0.0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "containerId", "config", "ifName", "networkName", "netns", "cniArgs", "result", "IPs"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_file_is_an_entry_or_an_error(tmp_path: Path, content: bytes) -> None:
    cache, parameters = Cache(tmp_path), RuntimeConf("c1")
    cache.results.mkdir(exist_ok=True)
    (cache.results / "n-c1-eth0").write_bytes(content)
    assert len(cache.attachments("c1")) <= 1
    for read in (cache.entry, lambda *names: cache.result(*names, "1.0.0"), cache.config):
        with suppress(UnreadableEntryError):
            read("n", parameters)


@given(st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_configuration_is_parsed_or_refused(content: bytes) -> None:
    for parse in (NetworkConfig.parse, PluginConfig.parse):
        with suppress(ConfigError):
            assert parse(content).raw == content
