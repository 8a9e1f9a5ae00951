"""Where the runtime does better than libcni, and what it owes its users beside the calls themselves."""

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
    from tests.runtime.conftest import Workshop

BOOM = {"stdout": {"code": 107, "msg": "boom", "details": "why"}, "exit": 1}
RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}


def notes(error: CniError) -> list[str]:
    return getattr(error, "__notes__", [])


# ---------------------------------------------------------------- a failed ADD


def test_a_failed_add_is_undone(workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf) -> None:
    workshop.script(p2={"ADD": BOOM})
    with pytest.raises(PluginError, match='plugin type="p2" failed \\(add\\): boom; why') as caught:
        workshop.runtime().add_network_list(chain, eth0)
    assert (caught.value.code, caught.value.msg, caught.value.details) == (107, "boom", "why")
    assert workshop.verbs() == ["p1 ADD", "p2 ADD", "p3 DEL", "p2 DEL", "p1 DEL"]
    assert notes(caught.value) == []
    assert workshop.entries() == {}


def test_what_cannot_be_undone_is_noted_on_the_error(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    workshop.script(p2={"ADD": BOOM}, p3={"DEL": BOOM}, p1={"DEL": BOOM})
    with pytest.raises(PluginError) as caught:
        workshop.runtime().add_network_list(chain, eth0)
    assert notes(caught.value) == [
        'during rollback: plugin type="p3" failed (delete): boom; why',
        'during rollback: plugin type="p1" failed (delete): boom; why',
    ]


def test_undoing_can_be_left_to_the_caller(workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf) -> None:
    workshop.script(p2={"ADD": BOOM})
    with pytest.raises(PluginError):
        workshop.runtime(undo_failed_add=False).add_network_list(chain, eth0)
    assert workshop.verbs() == ["p1 ADD", "p2 ADD"]


def test_a_second_add_does_not_take_the_first_ones_attachment_away(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    workshop.runtime().add_network_list(chain, eth0)
    workshop.calls()
    workshop.script(p1={"ADD": BOOM})
    for network in (chain, replace(chain, name="other")):
        with pytest.raises(PluginError) as caught:
            workshop.runtime().add_network_list(network, eth0)
        assert workshop.verbs() == ["p1 ADD"]
        assert notes(caught.value) == ["not rolled back: eth0 of c1 was attached before"]
    assert list(workshop.entries()) == ["n-c1-eth0"]


def test_nothing_is_called_before_all_executables_are_there(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    (workshop.bin / "p3").unlink()
    with pytest.raises(PluginError, match='type="p3" failed \\(add\\): failed to find plugin "p3"'):
        workshop.runtime().add_network_list(chain, eth0)
    assert workshop.verbs() == []


def test_an_add_whose_result_cannot_be_kept_is_undone(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    workshop.cache.write_text("not a directory")
    with pytest.raises(CniError, match='failed to set network "n" cached result'):
        workshop.runtime().add_network_list(chain, eth0)
    assert workshop.verbs()[3:] == ["p3 DEL", "p2 DEL", "p1 DEL"]


# ---------------------------------------------------------------- DEL


def test_del_goes_on_and_reports_all(workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf) -> None:
    workshop.runtime().add_network_list(chain, eth0)
    workshop.calls()
    workshop.script(p3={"DEL": BOOM}, p1={"DEL": {"stderr": "oops", "exit": 2, "stdout": ""}})
    with pytest.raises(CollectedError) as caught:
        workshop.runtime().delete_network_list(chain, eth0)
    assert workshop.verbs() == ["p3 DEL", "p2 DEL", "p1 DEL"]
    assert caught.value.code == 107
    assert caught.value.details.splitlines() == [
        'plugin type="p3" failed (delete): boom; why',
        'plugin type="p1" failed (delete): netplugin failed: "oops": exit status 2',
    ]
    assert list(workshop.entries()) == ["n-c1-eth0"]  # so that it can be tried again


def test_del_of_a_chain_with_a_missing_executable_still_frees_the_rest(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    workshop.runtime().add_network_list(chain, eth0)
    (workshop.bin / "p2").unlink()
    workshop.calls()
    with pytest.raises(PluginError, match='failed to find plugin "p2"'):
        workshop.runtime().delete_network_list(chain, eth0)
    assert workshop.verbs() == ["p3 DEL", "p1 DEL"]


# ---------------------------------------------------------------- what plugins are given


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_process_can_be_given_is_refused_at_once(text: str) -> None:
    with pytest.raises(CniError, match="cannot be the value of an environment variable") as caught:
        RuntimeConf("c1", netns=text)
    assert caught.value.code == Code.INVALID_ENVIRONMENT


def test_an_argument_may_hold_bytes_that_are_no_text(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    parameters = replace(eth0, args=(("K", "\udcff"),), capability_args={"x": "\udcff"})
    runtime = workshop.runtime()
    runtime.add_network_list(chain, parameters)
    runtime.delete_network_list(chain, parameters)
    assert len(workshop.calls()) == 6


def test_a_key_is_replaced_in_whatever_letter_case_it_stands(workshop: "Workshop", eth0: RuntimeConf) -> None:
    """A plugin folds the case of keys, and the last one wins: an old spelling must not come after ours."""
    plugin = {"type": "p1", "cniversion": "0.1.0", "Name": "other", "capabilities": {"x": True}, "runtimeconfig": {}}
    network = NetworkConfig.parse(json.dumps({"name": "n", "cniVersion": "1.1.0", "plugins": [plugin]}))
    workshop.runtime().add_network_list(network, replace(eth0, capability_args={"x": 1}))
    (call,) = workshop.calls()
    assert json.loads(call["stdin"]) == {"type": "p1", "cniVersion": "1.1.0", "name": "n", "runtimeConfig": {"x": 1}}


def test_integers_go_through_exactly(workshop: "Workshop", eth0: RuntimeConf) -> None:
    """P-246: libcni would send 9007199254740992."""
    text = '{"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": "p1", "big": 9007199254740993}]}'
    workshop.runtime().add_network_list(NetworkConfig.parse(text), eth0)
    assert '"big":9007199254740993' in workshop.calls()[0]["stdin"]


def test_a_single_plugin_has_its_own_name_and_version(workshop: "Workshop", eth0: RuntimeConf) -> None:
    raw = b'{ "type": "p1", "name": "solo", "cniVersion": "0.4.0" }'
    plugin, runtime = PluginConfig.parse(raw), workshop.runtime()
    result = runtime.add_network(plugin, eth0)
    assert result.cni_version == "0.4.0"
    assert runtime.cached_config(plugin.as_network(), eth0) == (raw, eth0)
    runtime.check_network(plugin, eth0)
    assert runtime.validate_network(plugin) == ()
    runtime.delete_network(plugin, eth0)
    assert workshop.verbs() == ["p1 ADD", "p1 CHECK", "p1 VERSION", "p1 DEL"]
    assert workshop.entries() == {}


def test_a_single_plugins_error_is_its_own(workshop: "Workshop", eth0: RuntimeConf) -> None:
    workshop.script(p1={"ADD": BOOM, "DEL": BOOM})
    with pytest.raises(CniError) as caught:
        workshop.runtime().add_network(PluginConfig.parse('{"type": "p1", "name": "solo"}'), eth0)
    assert str(caught.value) == "boom; why"
    assert notes(caught.value) == ['during rollback: plugin type="p1" name="solo" failed (delete): boom; why']


# ---------------------------------------------------------------- deadlines


def hanging(workshop: "Workshop", name: str, verb: str) -> Path:
    """A plugin that, asked for `verb`, waits for ever together with a child of its own; where it says that it does."""
    never, started = workshop.bin.parent / "never", workshop.bin.parent / "started"
    os.mkfifo(never)
    original = workshop.bin / f"{name}.real"
    (workshop.bin / name).rename(original)
    (workshop.bin / name).write_text(
        f"#!/bin/sh\n"
        f'if [ "$CNI_COMMAND" = {verb} ]; then\n'
        f"  sh -c 'echo $$ > {shlex.quote(str(started))}; cat {shlex.quote(str(never))}' &\n"
        f"  wait\n"
        f"fi\n"
        f"exec {shlex.quote(str(original))}\n"
    )
    (workshop.bin / name).chmod(0o755)
    return started


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"  # dead, and waiting for somebody to notice


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline


def test_a_plugin_that_hangs_is_killed_with_its_children_and_undone(
    workshop: "Workshop", chain: NetworkConfig, eth0: RuntimeConf
) -> None:
    started = hanging(workshop, "p2", "ADD")
    with pytest.raises(PluginError, match="did not answer within 3 s and was killed") as caught:
        workshop.runtime(deadline=3).add_network_list(chain, eth0)
    assert caught.value.code == Code.TRY_AGAIN_LATER
    assert [verb.replace(".real", "") for verb in workshop.verbs()] == ["p1 ADD", "p3 DEL", "p2 DEL", "p1 DEL"]
    wait_until(lambda: not is_running(int(started.read_text())))


# ---------------------------------------------------------------- GC


def attach(workshop: "Workshop", network: NetworkConfig, *ids: str) -> None:
    for container_id in ids:
        workshop.runtime().add_network_list(network, RuntimeConf(container_id))
    workshop.calls()


def test_gc_goes_on_after_a_failure(workshop: "Workshop", chain: NetworkConfig) -> None:
    attach(workshop, chain, "a", "b", "c")
    workshop.script(p2={"DEL": BOOM}, p1={"GC": BOOM})
    with pytest.raises(CollectedError) as caught:
        workshop.runtime().gc_network_list(chain, [AttachmentId("b", "eth0")])
    assert [line.partition(":")[0] for line in caught.value.details.splitlines()] == [
        "failed to delete stale attachment a eth0",
        "failed to delete stale attachment c eth0",
        "failed to GC plugin p1",
    ]
    assert len(workshop.verbs()) == 9


def test_gc_says_when_it_cannot_know_what_is_attached(workshop: "Workshop", chain: NetworkConfig) -> None:
    """P-468: libcni is silently content."""
    workshop.cache.mkdir()
    (workshop.cache / "results").write_text("not a directory")
    with pytest.raises(CniError, match="cannot list"):
        workshop.runtime().gc_network_list(chain, [])
    assert workshop.verbs() == ["p1 GC", "p2 GC", "p3 GC"]


# ---------------------------------------------------------------- plugins of this installation


def test_a_runtime_without_a_path_says_so(chain: NetworkConfig, eth0: RuntimeConf, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no paths provided"):
        Runtime([], cache_dir=tmp_path).add_network_list(chain, eth0)


def test_a_registered_plugin_without_an_executable_answers_in_this_process(tmp_path: Path) -> None:
    runtime = Runtime([str(tmp_path)], cache_dir=tmp_path)
    assert runtime.plugin_versions("loopback") == version.ALL
    network = {"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": "loopback"}]}
    runtime.status_network_list(NetworkConfig.parse(json.dumps(network)))
    with pytest.raises(CniError, match='failed to find plugin "nobody"'):
        runtime.plugin_versions("nobody")
