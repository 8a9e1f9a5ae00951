"""A call of a plugin: the verb, the CNI_* variables and the configuration on stdin (SPEC section 2, Parameters)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol import go_json, names, version
from pycni.protocol.errors import CniError, Code

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")

_ALL = frozenset(VERBS)
_ATTACHMENT_VERBS = frozenset({"ADD", "CHECK", "DEL"})
# Each variable, the verbs that require it, and the check of its value, in the order in which errors list them.
_VARIABLES = (
    ("CNI_CONTAINERID", _ATTACHMENT_VERBS, names.check_container_id),
    ("CNI_NETNS", frozenset({"ADD", "CHECK"}), None),
    ("CNI_IFNAME", _ATTACHMENT_VERBS, names.check_ifname),
    ("CNI_PATH", _ALL - {"VERSION"}, None),
)


def check_environment(env: Mapping[str, str]) -> None:
    """Raise CniError, code 4, unless all variables that the verb requires are set and valid.

    See docs/reference/protocol.md#environment-variables.
    """
    command = env.get("CNI_COMMAND", "")
    missing = [] if command else ["CNI_COMMAND"]
    for name, verbs, check in _VARIABLES:
        if command not in verbs:
            continue
        if not env.get(name):
            missing.append(name)
        elif check:
            check(env[name])
    if missing:
        raise CniError(f"required env variables [{','.join(missing)}] missing", code=Code.INVALID_ENVIRONMENT)


@dataclass(frozen=True)
class Request:
    """A validated call. The configuration is the decoded JSON object, not yet validated by the plugin's model."""

    command: str
    container_id: str
    netns: str  # CNI_NETNS as given; DEL may have none
    ifname: str
    args: str
    path: tuple[str, ...]  # CNI_PATH: the directories to search for delegates
    allow_own_netns: bool
    network: str
    cni_version: str
    config: dict[str, Any]
    stdin: bytes = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    netns_fd: int | None = None  # descriptor of that namespace, if the caller has opened it
    host_fd: int | None = None  # descriptor of the caller's own network namespace, if it has opened it

    def with_command(self, command: str) -> Self:
        """Return the same call with another verb."""
        return replace(self, command=command, env={**self.env, "CNI_COMMAND": command})

    @property
    def netns_path(self) -> str:
        """A path that opens the container's network namespace: CNI_NETNS, or /proc/self/fd/N of `netns_fd`."""
        return self.netns if self.netns_fd is None else f"/proc/self/fd/{self.netns_fd}"

    @classmethod
    def read(cls, env: Mapping[str, str], stdin: bytes, *, netns: int | None = None, host: int | None = None) -> Self:
        """Return the call described by environment and stdin.

        `netns` and `host` are descriptors of the network namespace at CNI_NETNS and of the caller's own, if the caller
        has opened them. Raises CniError for the first problem in environment, JSON, network name and verb, in this
        order (docs/reference/protocol.md#order-of-checks).
        """
        check_environment(env)
        config = decode_config(stdin)
        known = go_json.select_members(config, ("name", "cniVersion"))
        network = known.get("name", "")
        if not isinstance(network, str):
            raise decoding_error(f"name must be a string, not {go_json.dumps_compact(network)}")
        names.check_network_name(network)
        command = env["CNI_COMMAND"]
        if command not in VERBS:
            raise CniError(f"unknown CNI_COMMAND: {command}", code=Code.INVALID_ENVIRONMENT)
        cni_version = known.get("cniVersion", "")
        if not isinstance(cni_version, str):
            raise CniError(
                f"decoding version from network config: cniVersion must be a string, not {cni_version!r}",
                code=Code.DECODING_FAILURE,
            )
        override = env.get("CNI_NETNS_OVERRIDE", "")
        return cls(
            command=command,
            container_id=env.get("CNI_CONTAINERID", ""),
            netns=env.get("CNI_NETNS", ""),
            ifname=env.get("CNI_IFNAME", ""),
            args=env.get("CNI_ARGS", ""),
            path=tuple(env.get("CNI_PATH", "").split(":")),
            allow_own_netns=override == "1" or override.lower() == "true",
            network=network,
            cni_version=cni_version or version.DEFAULT,
            config=config,
            stdin=stdin,
            env=env,
            netns_fd=netns,
            host_fd=host,
        )


def decode_config(stdin: bytes) -> dict[str, Any]:
    """Decode the JSON object on stdin; null counts as an empty object. Raises CniError, code 6."""
    try:
        config = go_json.loads(stdin)
    except ValueError as error:
        raise decoding_error(str(error) if stdin.strip() else "stdin is empty") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise decoding_error(f"it must be a JSON object, not {go_json.dumps_compact(config)[:40]}")
    return config


def decoding_error(cause: str) -> CniError:
    """Return the error for a configuration that cannot be decoded (code 6)."""
    return CniError(f"error unmarshall network config: {cause}", code=Code.DECODING_FAILURE)
