"""Client of the CRI (runtime.v1), with the messages that pods need, encoded by hand because there is no .proto file."""

from collections.abc import Iterator
from typing import Any

import grpc

_TIMEOUT = 240  # seconds, kubelet's timeout for a pod

# Message: {field: (number, type)}. A type is str, bytes, int, "map" (of strings) or a message name; [type] is repeated.
MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Empty": {},
    "MapEntry": {"key": (1, str), "value": (2, str)},
    "PodMetadata": {"name": (1, str), "uid": (2, str), "namespace": (3, str), "attempt": (4, int)},
    "Dns": {"servers": (1, [str]), "searches": (2, [str]), "options": (3, [str])},
    "PortMapping": {"protocol": (1, int), "container_port": (2, int), "host_port": (3, int), "host_ip": (4, str)},
    "Namespaces": {"network": (1, int), "pid": (2, int), "ipc": (3, int)},
    "PodSecurity": {"namespace_options": (1, "Namespaces"), "privileged": (6, int)},
    "PodLinux": {"cgroup_parent": (1, str), "security_context": (2, "PodSecurity")},
    "PodConfig": {
        "metadata": (1, "PodMetadata"),
        "hostname": (2, str),
        "log_directory": (3, str),
        "dns_config": (4, "Dns"),
        "port_mappings": (5, ["PortMapping"]),
        "labels": (6, "map"),
        "annotations": (7, "map"),
        "linux": (8, "PodLinux"),
    },
    "RunPod": {"config": (1, "PodConfig")},
    "Pod": {"pod_sandbox_id": (1, str)},
    "PodIp": {"ip": (1, str)},
    "PodNetwork": {"ip": (1, str), "additional_ips": (2, ["PodIp"])},
    "PodState": {"id": (1, str), "state": (3, int), "network": (5, "PodNetwork")},
    "PodStatus": {"status": (1, "PodState")},
    "ImageSpec": {"image": (1, str), "user_specified_image": (18, str)},
    "Mount": {"container_path": (1, str), "host_path": (2, str), "readonly": (3, int)},
    "ContainerMetadata": {"name": (1, str)},
    "ContainerSecurity": {"privileged": (2, int), "namespace_options": (3, "Namespaces")},
    "ContainerLinux": {"security_context": (2, "ContainerSecurity")},
    "ContainerConfig": {
        "metadata": (1, "ContainerMetadata"),
        "image": (2, "ImageSpec"),
        "command": (3, [str]),
        "envs": (6, ["MapEntry"]),
        "mounts": (7, ["Mount"]),
        "log_path": (11, str),
        "linux": (15, "ContainerLinux"),
    },
    "CreateContainer": {
        "pod_sandbox_id": (1, str),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodConfig"),
    },
    "Container": {"container_id": (1, str), "timeout": (2, int)},
    "Exec": {"container_id": (1, str), "cmd": (2, [str]), "timeout": (3, int)},
    "ExecAnswer": {"stdout": (1, bytes), "stderr": (2, bytes), "exit_code": (3, int)},
    "Condition": {"type": (1, str), "status": (2, int), "reason": (3, str), "message": (4, str)},
    "Conditions": {"conditions": (1, ["Condition"])},
    "Status": {"status": (1, "Conditions")},
}
CALLS = {
    "Status": ("Empty", "Status"),
    "RunPodSandbox": ("RunPod", "Pod"),
    "PodSandboxStatus": ("Pod", "PodStatus"),
    "StopPodSandbox": ("Pod", "Empty"),
    "RemovePodSandbox": ("Pod", "Empty"),
    "CreateContainer": ("CreateContainer", "Container"),
    "StartContainer": ("Container", "Empty"),
    "StopContainer": ("Container", "Empty"),
    "ExecSync": ("Exec", "ExecAnswer"),
}
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class Cri:
    """Calls by name: the request's fields are keyword arguments, the response is a dict. Raises grpc.RpcError."""

    def __init__(self, socket: str) -> None:
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])

    def __call__(self, call: str, **fields: Any) -> dict[str, Any]:
        request, answer = CALLS[call]
        method = self.channel.unary_unary(f"/runtime.v1.RuntimeService/{call}")
        return decode(answer, method(encode(request, fields), timeout=_TIMEOUT))


def network_is_ready(cri: Cri) -> tuple[object, object]:
    """Return whether the network is ready, and the runtime's conditions."""
    try:
        conditions = {condition["type"]: condition for condition in cri("Status")["status"]["conditions"]}
    except grpc.RpcError as error:  # the service accepts calls before it is initialised
        return False, error
    return conditions["NetworkReady"]["status"], conditions


def encode(message: str, fields: dict[str, Any]) -> bytes:
    return b"".join(_encoded(*MESSAGES[message][name], value) for name, value in fields.items())


def _encoded(number: int, kind: Any, value: Any) -> bytes:
    if isinstance(kind, list):
        return b"".join(_encoded(number, kind[0], item) for item in value)
    if kind == "map":
        return b"".join(_encoded(number, "MapEntry", {"key": key, "value": item}) for key, item in value.items())
    if kind is int:
        return _varint(number << 3 | VARINT) + _varint(value)
    content = value.encode() if kind is str else value if kind is bytes else encode(kind, value)
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def decode(message: str, encoded: bytes) -> dict[str, Any]:
    """Decode the known fields. Absent fields have their zero value, as in protobuf."""
    known = {number: (name, kind) for name, (number, kind) in MESSAGES[message].items()}
    fields = {name: _zero(kind) for name, kind in known.values()}
    for number, value in _fields(encoded):
        name, kind = known.get(number, ("", None))
        if isinstance(kind, list):
            fields[name].append(_decoded(kind[0], value))
        elif kind is not None:
            fields[name] = _decoded(kind, value)
    return fields


def _zero(kind: Any) -> Any:
    if isinstance(kind, list):
        return []
    return decode(kind, b"") if isinstance(kind, str) else kind()


def _decoded(kind: Any, value: Any) -> Any:
    if kind is str:
        return value.decode()
    return decode(kind, value) if isinstance(kind, str) else value


def _fields(encoded: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = encoded[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(encoded):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            yield number, varint()
            continue
        size = varint() if wire == LENGTH else {FIXED64: 8, FIXED32: 4}[wire]
        yield number, encoded[position : position + size]
        position += size
