"""libcni's test vectors for operations: plugin calls, results and the cache."""

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
    from tests.runtime.conftest import Recorders

OPERATIONS = json.loads((Path(__file__).parents[1] / "data" / "library_vectors.json").read_text())["operations"]

# Intended differences from libcni. In addition, `capabilities` is removed from every call (SPEC section 3, Deriving
# execution configuration from plugin configuration).
ROLLED_BACK = "a failed ADD is rolled back by DEL of the whole chain"
CONTINUES = "DEL continues after a failure and calls all plugins"
CHECKED_FIRST = "all executables are looked up before the first call, outside of a plugin's error"
NO_NIL_LIST = "Python does not distinguish an empty from a nil list"
DEVIATIONS = {
    "LV-net-10": ROLLED_BACK,
    "LV-net-11": ROLLED_BACK,
    "LV-net-12": ROLLED_BACK,
    "LV-net-14": ROLLED_BACK,
    "LV-net-15": ROLLED_BACK,
    "LV-net-17": ROLLED_BACK,
    "LV-net-22": ROLLED_BACK,
    "LV-net-24": CHECKED_FIRST,
    "LV-net-25": CHECKED_FIRST,
    "LV-net-26": CHECKED_FIRST,
    "LV-net-39": CONTINUES,
    "LV-net-87": NO_NIL_LIST,
}
# The messages of decoders and the operating system, which differ in Python.
FOREIGN_MESSAGES = ("invalid character", "strconv.Atoi", "unexpected end of JSON input")


def operations(*commands: str) -> pytest.MarkDecorator:
    chosen = [op for op in OPERATIONS if op["request"]["cmd"] in commands]
    assert chosen
    return pytest.mark.parametrize("op", chosen, ids=lambda op: op["id"])


def perform(runtime: Runtime, request: dict[str, Any]) -> Any:
    """Call the operation by its Python name and return its result."""
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
    operation = {
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
    return operation[request["cmd"]]()


def expected_calls(op: dict[str, Any]) -> list[dict[str, Any]]:
    """Return libcni's calls with the changes of the intended differences."""
    calls = [{**call, "stdin": dict(call["stdin"])} for call in op["calls"]]
    for call in calls:
        call["stdin"].pop("capabilities", None)
    types = [plugin["type"] for plugin in op["request"]["conflist"].get("plugins", ())]
    difference = DEVIATIONS.get(op["id"])
    if difference == ROLLED_BACK:
        calls += [delete_call(op, call_type) for call_type in reversed(types)]
    if difference == CONTINUES:
        calls += [delete_call(op, call_type, calls[0]["stdin"]["prevResult"]) for call_type in reversed(types[:-1])]
    if difference == NO_NIL_LIST:
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
        for words in FOREIGN_MESSAGES:
            if words in line:
                line = line.partition(words)[0].rpartition(":")[0]  # noqa: PLW2901 - the common part
        if DEVIATIONS.get(op["id"]) == CHECKED_FIRST:
            line = line.partition("failed (add): ")[2]  # noqa: PLW2901
        if op["request"]["cmd"] in {"del", "check"} and '"abc"' in line:
            line = '"abc"'  # noqa: PLW2901 - the message about an invalid version differs
        assert line in str(error)


@operations("add", "del", "check", "status", "gc", "validate", "version", "cached_config", "cached_result")
def test_operation(op: dict[str, Any], recorders: "Recorders", monkeypatch: pytest.MonkeyPatch) -> None:
    recorders.script(**op.get("plugin_script", {}))
    if "plugin_versions" in op:
        monkeypatch.setenv("REC_VERSIONS", op["plugin_versions"])
    if "cache_before" in op:
        recorders.write_entries(op["cache_before"])

    if "error" in op["out"]:
        with pytest.raises(CniError) as caught:
            perform(recorders.runtime(), op["request"])
        assert_same_error(caught.value, op, recorders.bin)
    else:
        returned = perform(recorders.runtime(), op["request"])
        assert_outcome(returned, op["out"], op["request"]["cmd"])

    calls = [
        {**call, "stdin": json.loads(call["stdin"]), "env": {k: v for k, v in call["env"].items() if k != "CNI_PATH"}}
        for call in recorders.calls()
    ]
    expected = expected_calls(op) if "calls" in op else []
    assert [(call["type"], call["command"]) for call in calls] == [(call["type"], call["command"]) for call in expected]
    for call, expectation in zip(calls, expected, strict=True):
        assert call["stdin"] == expectation["stdin"]
        assert {key: call["env"].get(key) for key in expectation["env"]} == expectation["env"]
    assert recorders.entries() == op.get("cache_after", op.get("cache_before", {}))


@operations("attachments")
def test_cached_attachments(op: dict[str, Any], recorders: "Recorders") -> None:
    recorders.write_entries(op["cache_before"])
    found = recorders.runtime().cached_attachments(op["request"]["id"])
    assert [as_libcni_shows_it(entry) for entry in found] == op["out"]["attachments"]


def as_libcni_shows_it(entry: CachedAttachment) -> dict[str, Any]:
    """Return the attachment as libcni represents it, without empty members."""
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
def test_executable_is_found(op: dict[str, Any], tmp_path: Path) -> None:
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

    def with_directory(text: str) -> str:
        return text.replace("{d}", str(tmp_path))

    path = [with_directory(directory) for directory in op["request"]["paths"]]
    if "error" in op["out"]:
        with pytest.raises(CniError) as caught:
            find_executable(op["request"]["plugin"], path)
        assert caught.value.msg == with_directory(op["out"]["error"])
    else:
        assert find_executable(op["request"]["plugin"], path).replace("//", "/") == with_directory(op["out"]["path"])


def test_intended_differences_name_existing_operations() -> None:
    assert set(DEVIATIONS) <= {op["id"] for op in OPERATIONS}
