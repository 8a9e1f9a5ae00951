"""What libcni was seen to do, operation by operation: the calls of plugins, what came of them, and the cache."""

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pycni.protocol.errors import CniError
from pycni.runtime import AttachmentId, CachedAttachment, NetworkConfig, Runtime, RuntimeConf
from pycni.sdk.execute import find_executable

if TYPE_CHECKING:
    from tests.runtime.conftest import Workshop

OPERATIONS = json.loads((Path(__file__).parents[1] / "data" / "library_vectors.json").read_text())["operations"]

# Where we do otherwise, on purpose. P-444: `capabilities` stays behind in every call (SPEC section 3).
UNDONE = "a failed ADD is undone: DEL of the whole chain follows"
GOES_ON = "DEL goes on after a failure and tells all plugins"
NOTHING_BEFORE_ALL_ARE_THERE = "names are checked before, and outside, the first plugin"
NO_NIL_LIST = "Python has no nil list beside the empty one"
DEVIATIONS = {
    "LV-net-10": UNDONE,
    "LV-net-11": UNDONE,
    "LV-net-12": UNDONE,
    "LV-net-14": UNDONE,
    "LV-net-15": UNDONE,
    "LV-net-17": UNDONE,
    "LV-net-22": UNDONE,
    "LV-net-24": NOTHING_BEFORE_ALL_ARE_THERE,
    "LV-net-25": NOTHING_BEFORE_ALL_ARE_THERE,
    "LV-net-26": NOTHING_BEFORE_ALL_ARE_THERE,
    "LV-net-39": GOES_ON,
    "LV-net-87": NO_NIL_LIST,
}
# Decoders and the operating system have their own words for these.
OWN_WORDS = ("invalid character", "strconv.Atoi", "unexpected end of JSON input")


def operations(*commands: str) -> pytest.MarkDecorator:
    chosen = [op for op in OPERATIONS if op["request"]["cmd"] in commands]
    assert chosen
    return pytest.mark.parametrize("op", chosen, ids=lambda op: op["id"])


def perform(runtime: Runtime, request: dict[str, Any]) -> Any:
    """The operation under its Python name; what it returns."""
    network = NetworkConfig.parse(json.dumps(request["conflist"]))
    parameters = RuntimeConf(
        request["id"],
        netns=request["netns"],
        ifname=request["ifname"],
        args=tuple((key, value) for key, value in request.get("args", ())),
        capability_args=request.get("caps", {}),
    )
    valid = None
    if "valid" in request:
        valid = [AttachmentId(entry["containerID"], entry["ifname"]) for entry in request["valid"] or ()]
    perform_it = {
        "add": lambda: runtime.add_network_list(network, parameters),
        "del": lambda: runtime.delete_network_list(network, parameters),
        "check": lambda: runtime.check_network_list(network, parameters),
        "status": lambda: runtime.status_network_list(network),
        "gc": lambda: runtime.gc_network_list(network, valid),
        "validate": lambda: runtime.validate_network_list(network),
        "version": lambda: runtime.plugin_versions(request["type"]),
        "cached_config": lambda: runtime.cached_config(network, parameters),
        "cached_result": lambda: runtime.cached_result(network, parameters),
    }
    return perform_it[request["cmd"]]()


def expected_calls(op: dict[str, Any]) -> list[dict[str, Any]]:
    """libcni's calls, with what the deviations change."""
    calls = [{**call, "stdin": dict(call["stdin"])} for call in op["calls"]]
    for call in calls:
        call["stdin"].pop("capabilities", None)
    types = [plugin["type"] for plugin in op["request"]["conflist"].get("plugins", ())]
    why = DEVIATIONS.get(op["id"])
    if why == UNDONE:
        calls += [delete_call(op, call_type) for call_type in reversed(types)]
    if why == GOES_ON:
        calls += [delete_call(op, call_type, calls[0]["stdin"]["prevResult"]) for call_type in reversed(types[:-1])]
    if why == NO_NIL_LIST:
        calls[-1]["stdin"] |= {"cni.dev/attachments": [], "cni.dev/valid-attachments": []}
    return calls


def delete_call(op: dict[str, Any], plugin: str, prev_result: dict[str, Any] | None = None) -> dict[str, Any]:
    stdin = {"name": op["request"]["conflist"]["name"], "cniVersion": op["request"]["conflist"]["cniVersion"]}
    stdin |= {"type": plugin} | ({"prevResult": prev_result} if prev_result else {})
    env = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_ARGS": ""}
    return {"type": plugin, "command": "DEL", "env": {**env, "CNI_COMMAND": "DEL"}, "stdin": stdin}


def assert_outcome(returned: Any, expected: Any, command: str) -> None:
    if command in {"add", "cached_result"}:
        document = returned and returned.to_document(returned.cni_version)
        assert (document, document and returned.cni_version) == (expected.get("result"), expected.get("result_version"))
    elif command == "validate":
        assert list(returned) == expected["caps"]
    elif command == "version":
        assert list(returned) == expected["supported"]
    elif command == "cached_config":
        raw, parameters = returned or (b"", None)
        assert raw.decode() == expected["config"]
        if parameters:
            cached = expected["rt"]
            assert [list(pair) for pair in parameters.args] == cached["Args"]
            assert parameters.capability_args == cached["CapabilityArgs"]
            assert (parameters.container_id, parameters.netns) == (cached["ContainerID"], cached["NetNS"])
    else:
        assert returned is None


def assert_same_error(error: CniError, op: dict[str, Any], bin_directory: Path) -> None:
    expected = op["out"]["error"]
    text = expected["text"].replace("/run/bin", str(bin_directory)).strip("[]")
    if "code" in expected and op["request"]["cmd"] != "gc":
        assert (error.code, error.details) == (expected["code"], expected["details"])
    for line in text.splitlines():
        for words in OWN_WORDS:
            if words in line:
                line = line.partition(words)[0].rpartition(":")[0]  # noqa: PLW2901 - what is left of it
        if DEVIATIONS.get(op["id"]) == NOTHING_BEFORE_ALL_ARE_THERE:
            line = line.partition("failed (add): ")[2]  # noqa: PLW2901
        if op["request"]["cmd"] in {"del", "check"} and '"abc"' in line:
            line = '"abc"'  # noqa: PLW2901 - a version that is none, in our words
        assert line in str(error)


@operations("add", "del", "check", "status", "gc", "validate", "version", "cached_config", "cached_result")
def test_an_operation(op: dict[str, Any], workshop: "Workshop", monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.script(**op.get("plugin_script", {}))
    if "plugin_versions" in op:
        monkeypatch.setenv("REC_VERSIONS", op["plugin_versions"])
    if "cache_before" in op:
        workshop.write_entries(op["cache_before"])

    if "error" in op["out"]:
        with pytest.raises(CniError) as caught:
            perform(workshop.runtime(), op["request"])
        assert_same_error(caught.value, op, workshop.bin)
    else:
        returned = perform(workshop.runtime(), op["request"])
        assert_outcome(returned, op["out"], op["request"]["cmd"])

    made = [
        {**call, "stdin": json.loads(call["stdin"]), "env": {k: v for k, v in call["env"].items() if k != "CNI_PATH"}}
        for call in workshop.calls()
    ]
    wanted = expected_calls(op) if "calls" in op else []
    assert [(call["type"], call["command"]) for call in made] == [(call["type"], call["command"]) for call in wanted]
    for call, want in zip(made, wanted, strict=True):
        assert call["stdin"] == want["stdin"]
        assert {key: call["env"].get(key) for key in want["env"]} == want["env"]
    assert workshop.entries() == op.get("cache_after", op.get("cache_before", {}))


@operations("attachments")
def test_attachments_are_listed(op: dict[str, Any], workshop: "Workshop") -> None:
    workshop.write_entries(op["cache_before"])
    found = workshop.runtime().cached_attachments(op["request"]["id"])
    assert [listed(entry) for entry in found] == op["out"]["attachments"]


def listed(entry: CachedAttachment) -> dict[str, Any]:
    """An attachment as libcni shows it: what is empty is left out."""
    parameters = entry.parameters
    shown = {
        "ContainerID": parameters.container_id,
        "Network": entry.network,
        "IfName": parameters.ifname,
        "Config": base64.b64encode(entry.config).decode(),
        "NetNS": parameters.netns,
        "CniArgs": [list(pair) for pair in parameters.args],
        "CapabilityArgs": parameters.capability_args,
    }
    return {key: value for key, value in shown.items() if value}


@operations("find")
def test_an_executable_is_found(op: dict[str, Any], tmp_path: Path) -> None:
    one, two = tmp_path / "d1", tmp_path / "d2"
    one.mkdir()
    two.mkdir()
    for file, mode in ((one / "nox", 0o644), (two / "p", 0o755), (two / "nox", 0o755)):
        file.write_text("")
        file.chmod(mode)
    (one / "p").symlink_to(two / "p")
    (one / "dang").symlink_to(tmp_path / "nowhere")
    os.mkfifo(one / "fifo")
    (two / "dirplug").mkdir()

    def placed(text: str) -> str:
        return text.replace("{d}", str(tmp_path))

    path = [placed(directory) for directory in op["request"]["paths"]]
    if "error" in op["out"]:
        with pytest.raises(CniError) as caught:
            find_executable(op["request"]["plugin"], path)
        assert caught.value.msg == placed(op["out"]["error"])
    else:
        assert find_executable(op["request"]["plugin"], path).replace("//", "/") == placed(op["out"]["path"])


def test_every_deviation_names_an_operation() -> None:
    assert set(DEVIATIONS) <= {op["id"] for op in OPERATIONS}
