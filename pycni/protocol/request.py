"""One call of a plugin: the verb, the CNI_* variables and the bytes on stdin (SPEC section 2, "Parameters")."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol import go_json, names, version
from pycni.protocol.errors import CniError, Code

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")

_ALL = frozenset(VERBS)
_ATTACHED = frozenset({"ADD", "CHECK", "DEL"})
# In the order in which errors name them: the variable, the verbs that require it, how its value is checked.
_VARIABLES = (
    ("CNI_CONTAINERID", _ATTACHED, names.check_container_id),
    ("CNI_NETNS", frozenset({"ADD", "CHECK"}), None),
    ("CNI_IFNAME", _ATTACHED, names.check_ifname),
    ("CNI_PATH", _ALL - {"VERSION"}, None),
)


def check_environment(env: Mapping[str, str]) -> None:
    """Raise CniError, code 4, unless all variables that the verb requires are there and valid (P-020 to P-025)."""
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
    """A call as a plugin received it, checked as far as the protocol goes; the configuration is still plain JSON."""

    command: str
    container_id: str
    netns: str  # the path as given; may be empty for DEL
    ifname: str
    args: str
    path: tuple[str, ...]  # where delegates are looked for
    allow_own_netns: bool
    network: str
    cni_version: str
    config: dict[str, Any]
    stdin: bytes = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    netns_fd: int | None = None  # the namespace itself, where the caller has opened it for us
    host_fd: int | None = None  # that of the caller, where it has opened it

    def with_command(self, command: str) -> Self:
        """The same call with another verb."""
        return replace(self, command=command, env={**self.env, "CNI_COMMAND": command})

    @property
    def netns_path(self) -> str:
        """Where the container's namespace is to be found: its path, or our descriptor of it."""
        return self.netns if self.netns_fd is None else f"/proc/self/fd/{self.netns_fd}"

    @classmethod
    def read(cls, env: Mapping[str, str], stdin: bytes, *, netns: int | None = None, host: int | None = None) -> Self:
        """Check environment, JSON, network name and verb, in this order (P-060). Raises CniError.

        `netns` and `host` are descriptors of the namespace that CNI_NETNS names and of the caller's own, if the caller
        has opened them.
        """
        check_environment(env)
        config = decode_config(stdin)
        known = go_json.select_members(config, ("name", "cniVersion"))
        network = known.get("name", "")
        if not isinstance(network, str):
            raise decoding_error(f"name is a string, not {go_json.dumps_compact(network)}")
        names.check_network_name(network)
        command = env["CNI_COMMAND"]
        if command not in VERBS:
            raise CniError(f"unknown CNI_COMMAND: {command}", code=Code.INVALID_ENVIRONMENT)
        cni_version = known.get("cniVersion", "")
        if not isinstance(cni_version, str):
            raise CniError(
                f"decoding version from network config: cniVersion is a string, not {cni_version!r}",
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
    """The object on stdin; null is an empty one. Raises CniError, code 6."""
    try:
        config = go_json.loads(stdin)
    except ValueError as error:
        raise decoding_error(str(error) if stdin.strip() else "stdin is empty") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise decoding_error(f"a JSON object is wanted, not {go_json.dumps_compact(config)[:40]}")
    return config


def decoding_error(cause: str) -> CniError:
    """The error for a configuration that cannot be read."""
    return CniError(f"error unmarshall network config: {cause}", code=Code.DECODING_FAILURE)
