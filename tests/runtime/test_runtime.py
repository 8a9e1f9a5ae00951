"""The runtime: differences from libcni (docs/reference/protocol.md#3-runtime), plugin input, deadlines and GC."""

import json
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pycni.protocol import version
from pycni.protocol.errors import CniError, Code
from pycni.runtime import AttachmentId, CollectedError, NetworkConfig, PluginConfig, PluginError, Runtime, RuntimeConf

if TYPE_CHECKING:
    from tests.runtime.conftest import Recorders

FAILURE = {"stdout": {"code": 107, "msg": "failure", "details": "why"}, "exit": 1}
RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}


def notes(error: CniError) -> list[str]:
    return getattr(error, "__notes__", [])


# ---------------------------------------------------------------- a failed ADD


def test_failed_add_is_rolled_back(recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf) -> None:
    recorders.script(p2={"ADD": FAILURE})
    with pytest.raises(PluginError, match='plugin type="p2" failed \\(add\\): failure; why') as caught:
        recorders.runtime().add_network_list(chain, eth0)
    assert (caught.value.code, caught.value.msg, caught.value.details) == (107, "failure", "why")
    assert recorders.verbs() == ["p1 ADD", "p2 ADD", "p3 DEL", "p2 DEL", "p1 DEL"]
    assert notes(caught.value) == []
    assert recorders.entries() == {}


def test_errors_of_the_rollback_are_notes_of_the_error(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    recorders.script(p2={"ADD": FAILURE}, p3={"DEL": FAILURE}, p1={"DEL": FAILURE})
    with pytest.raises(PluginError) as caught:
        recorders.runtime().add_network_list(chain, eth0)
    assert notes(caught.value) == [
        'during rollback: plugin type="p3" failed (delete): failure; why',
        'during rollback: plugin type="p1" failed (delete): failure; why',
    ]


def test_rollback_can_be_disabled(recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf) -> None:
    recorders.script(p2={"ADD": FAILURE})
    with pytest.raises(PluginError):
        recorders.runtime(undo_failed_add=False).add_network_list(chain, eth0)
    assert recorders.verbs() == ["p1 ADD", "p2 ADD"]


def test_failed_second_add_keeps_the_attachment_of_the_first(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    recorders.runtime().add_network_list(chain, eth0)
    recorders.calls()
    recorders.script(p1={"ADD": FAILURE})
    for network in (chain, replace(chain, name="other")):
        with pytest.raises(PluginError) as caught:
            recorders.runtime().add_network_list(network, eth0)
        assert recorders.verbs() == ["p1 ADD"]
        assert notes(caught.value) == ["not rolled back: eth0 of c1 was attached before"]
    assert list(recorders.entries()) == ["n-c1-eth0"]


def test_no_plugin_is_called_if_an_executable_is_missing(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    (recorders.bin / "p3").unlink()
    with pytest.raises(PluginError, match='type="p3" failed \\(add\\): failed to find plugin "p3"'):
        recorders.runtime().add_network_list(chain, eth0)
    assert recorders.verbs() == []


def test_add_is_rolled_back_if_the_result_cannot_be_cached(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    recorders.cache.write_text("not a directory")
    with pytest.raises(CniError, match='failed to set network "n" cached result'):
        recorders.runtime().add_network_list(chain, eth0)
    assert recorders.verbs()[3:] == ["p3 DEL", "p2 DEL", "p1 DEL"]


# ---------------------------------------------------------------- DEL


def test_del_continues_after_failures_and_reports_all(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    recorders.runtime().add_network_list(chain, eth0)
    recorders.calls()
    recorders.script(p3={"DEL": FAILURE}, p1={"DEL": {"stderr": "oops", "exit": 2, "stdout": ""}})
    with pytest.raises(CollectedError) as caught:
        recorders.runtime().delete_network_list(chain, eth0)
    assert recorders.verbs() == ["p3 DEL", "p2 DEL", "p1 DEL"]
    assert caught.value.code == 107
    assert caught.value.details.splitlines() == [
        'plugin type="p3" failed (delete): failure; why',
        'plugin type="p1" failed (delete): netplugin failed: "oops": exit status 2',
    ]
    assert list(recorders.entries()) == ["n-c1-eth0"]  # so that DEL can be retried


def test_del_with_a_missing_executable_calls_the_other_plugins(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    recorders.runtime().add_network_list(chain, eth0)
    (recorders.bin / "p2").unlink()
    recorders.calls()
    with pytest.raises(PluginError, match='failed to find plugin "p2"'):
        recorders.runtime().delete_network_list(chain, eth0)
    assert recorders.verbs() == ["p3 DEL", "p1 DEL"]


# ---------------------------------------------------------------- plugin input


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_values_invalid_in_an_environment_are_refused(text: str) -> None:
    with pytest.raises(CniError, match="cannot be the value of an environment variable") as caught:
        RuntimeConf("c1", netns=text)
    assert caught.value.code == Code.INVALID_ENVIRONMENT


def test_arguments_can_contain_bytes_that_are_not_utf_8(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    parameters = replace(eth0, args=(("K", "\udcff"),), capability_args={"x": "\udcff"})
    runtime = recorders.runtime()
    runtime.add_network_list(chain, parameters)
    runtime.delete_network_list(chain, parameters)
    assert len(recorders.calls()) == 6


def test_keys_are_replaced_case_insensitively(recorders: "Recorders", eth0: RuntimeConf) -> None:
    """Plugins match keys case-insensitively and use the last one, so the previous spelling must not remain."""
    plugin = {"type": "p1", "cniversion": "0.1.0", "Name": "other", "capabilities": {"x": True}, "runtimeconfig": {}}
    network = NetworkConfig.parse(json.dumps({"name": "n", "cniVersion": "1.1.0", "plugins": [plugin]}))
    recorders.runtime().add_network_list(network, replace(eth0, capability_args={"x": 1}))
    (call,) = recorders.calls()
    assert json.loads(call["stdin"]) == {"type": "p1", "cniVersion": "1.1.0", "name": "n", "runtimeConfig": {"x": 1}}


def test_large_integers_are_passed_exactly(recorders: "Recorders", eth0: RuntimeConf) -> None:
    """libcni passes 9007199254740992."""
    text = '{"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": "p1", "big": 9007199254740993}]}'
    recorders.runtime().add_network_list(NetworkConfig.parse(text), eth0)
    assert '"big":9007199254740993' in recorders.calls()[0]["stdin"]


def test_single_plugin_uses_its_own_name_and_version(recorders: "Recorders", eth0: RuntimeConf) -> None:
    raw = b'{ "type": "p1", "name": "solo", "cniVersion": "0.4.0" }'
    plugin, runtime = PluginConfig.parse(raw), recorders.runtime()
    result = runtime.add_network(plugin, eth0)
    assert result.cni_version == "0.4.0"
    assert runtime.cached_config(plugin.as_network(), eth0) == (raw, eth0)
    runtime.check_network(plugin, eth0)
    assert runtime.validate_network(plugin) == ()
    runtime.delete_network(plugin, eth0)
    assert recorders.verbs() == ["p1 ADD", "p1 CHECK", "p1 VERSION", "p1 DEL"]
    assert recorders.entries() == {}


def test_error_of_a_single_plugin_has_no_prefix(recorders: "Recorders", eth0: RuntimeConf) -> None:
    recorders.script(p1={"ADD": FAILURE, "DEL": FAILURE})
    with pytest.raises(CniError) as caught:
        recorders.runtime().add_network(PluginConfig.parse('{"type": "p1", "name": "solo"}'), eth0)
    assert str(caught.value) == "failure; why"
    assert notes(caught.value) == ['during rollback: plugin type="p1" name="solo" failed (delete): failure; why']


# ---------------------------------------------------------------- deadlines


def install_hanging_plugin(recorders: "Recorders", name: str, verb: str) -> Path:
    """Make a plugin and its child process wait forever in `verb`. Return the file that gets the child's process ID."""
    fifo, started = recorders.bin.parent / "never", recorders.bin.parent / "started"
    os.mkfifo(fifo)
    original = recorders.bin / f"{name}.real"
    (recorders.bin / name).rename(original)
    (recorders.bin / name).write_text(
        f"#!/bin/sh\n"
        f'if [ "$CNI_COMMAND" = {verb} ]; then\n'
        f"  sh -c 'echo $$ > {shlex.quote(str(started))}; cat {shlex.quote(str(fifo))}' &\n"
        f"  wait\n"
        f"fi\n"
        f"exec {shlex.quote(str(original))}\n"
    )
    (recorders.bin / name).chmod(0o755)
    return started


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"  # zombie or dead


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline


def test_hanging_plugin_is_killed_with_its_children_and_add_rolled_back(
    recorders: "Recorders", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    started = install_hanging_plugin(recorders, "p2", "ADD")
    with pytest.raises(PluginError, match="did not answer within 3 s and was killed") as caught:
        recorders.runtime(deadline=3).add_network_list(chain, eth0)
    assert caught.value.code == Code.TRY_AGAIN_LATER
    assert [verb.replace(".real", "") for verb in recorders.verbs()] == ["p1 ADD", "p3 DEL", "p2 DEL", "p1 DEL"]
    wait_until(lambda: not is_running(int(started.read_text())))


# ---------------------------------------------------------------- GC


def attach(recorders: "Recorders", network: NetworkConfig, *ids: str) -> None:
    for container_id in ids:
        recorders.runtime().add_network_list(network, RuntimeConf(container_id))
    recorders.calls()


def test_gc_continues_after_failures(recorders: "Recorders", chain: NetworkConfig) -> None:
    attach(recorders, chain, "a", "b", "c")
    recorders.script(p2={"DEL": FAILURE}, p1={"GC": FAILURE})
    with pytest.raises(CollectedError) as caught:
        recorders.runtime().gc_network_list(chain, [AttachmentId("b", "eth0")])
    assert [line.partition(":")[0] for line in caught.value.details.splitlines()] == [
        "failed to delete stale attachment a eth0",
        "failed to delete stale attachment c eth0",
        "failed to GC plugin p1",
    ]
    assert len(recorders.verbs()) == 9


def test_gc_fails_if_the_cache_cannot_be_listed(recorders: "Recorders", chain: NetworkConfig) -> None:
    """libcni reports success."""
    recorders.cache.mkdir()
    (recorders.cache / "results").write_text("not a directory")
    with pytest.raises(CniError, match="cannot list"):
        recorders.runtime().gc_network_list(chain, [])
    assert recorders.verbs() == ["p1 GC", "p2 GC", "p3 GC"]


# ---------------------------------------------------------------- in-process plugins


def test_add_fails_without_a_plugin_path(chain: NetworkConfig, eth0: RuntimeConf, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no paths provided"):
        Runtime([], cache_dir=tmp_path).add_network_list(chain, eth0)


def test_registered_plugin_without_an_executable_is_called_in_process(tmp_path: Path) -> None:
    runtime = Runtime([str(tmp_path)], cache_dir=tmp_path)
    assert runtime.plugin_versions("loopback") == version.ALL
    network = {"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": "loopback"}]}
    runtime.status_network_list(NetworkConfig.parse(json.dumps(network)))
    with pytest.raises(CniError, match='failed to find plugin "missing"'):
        runtime.plugin_versions("missing")
