"""The plugins on a path, and those of this installation: found, asked for their versions, called one at a time."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pycni.protocol import go_json, version
from pycni.protocol.conversion import VersionedResult, parse_plugin_result
from pycni.protocol.errors import CniError
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.parameters import RuntimeConf
from pycni.sdk.execute import execute, find_executable

_NOBODY = RuntimeConf(container_id="", ifname="")
# VERSION is asked with values that satisfy even plugins which want them all (P-485).
_DUMMY = RuntimeConf(container_id="", netns="dummy", ifname="dummy")


class Plugins:
    """The executables in the directories of `path`; one that takes longer than `deadline` seconds is killed.

    A type without an executable is answered in this process, if it is registered in this installation; with
    `in_process`, so is one whose executable is a launcher of this installation.
    """

    def __init__(self, path: Sequence[str], deadline: float | None, *, in_process: bool = False) -> None:
        self.path = tuple(path)
        self.deadline = deadline
        self.in_process = in_process

    def find(self, plugin: str) -> str | None:
        """Where the executable of this type is; None if this process is to answer itself. Raises CniError."""
        try:
            return find_executable(plugin, self.path)
        except CniError:
            from pycni.sdk import registry  # pydantic comes with it, and most runtimes never need it

            if not plugin or registry.find(plugin) is None:
                raise
            return None

    def versions(self, plugin: str) -> tuple[str, ...]:
        """The versions of the specification that a type speaks (P-485 to P-487). Raises CniError."""
        stdin = go_json.dumps_compact({"cniVersion": version.NEWEST}).encode()
        try:
            stdout = self._run(plugin, _environment("VERSION", ["dummy"], _DUMMY), stdin)
        except CniError as error:
            if str(error) == "unknown CNI_COMMAND: VERSION":  # older than VERSION itself
                return ("0.1.0",)
            raise
        return version.decode_reply(stdout)

    def add(
        self,
        network: NetworkConfig,
        plugin: PluginConfig,
        parameters: RuntimeConf,
        prev_result: VersionedResult | None,
    ) -> VersionedResult:
        """ADD; what the previous plugin answered goes on as it is, in the version it chose (P-443, P-452)."""
        document = None if prev_result is None else prev_result.to_document(prev_result.cni_version)
        stdout = self.attached("ADD", network, plugin, parameters, document)
        try:
            return parse_plugin_result(stdout, network.cni_version)
        except ValueError as error:
            raise CniError(str(error), details=f"this is what {plugin.type} answered to ADD") from None

    def attached(
        self,
        command: str,
        network: NetworkConfig,
        plugin: PluginConfig,
        parameters: RuntimeConf,
        prev_result: Mapping[str, Any] | None,
    ) -> bytes:
        """ADD, CHECK or DEL; what the plugin printed. Without a prev_result, what is on disk stays. Raises CniError."""
        values: dict[str, Any] = {}
        capabilities = {
            name: value for name, value in parameters.capability_args.items() if name in plugin.capabilities
        }
        if capabilities:
            values["runtimeConfig"] = capabilities
        if prev_result is not None:
            values["prevResult"] = prev_result
        return self._call(command, network, plugin, values, parameters)

    def unattached(self, command: str, network: NetworkConfig, plugin: PluginConfig, values: Mapping[str, Any]) -> None:
        """STATUS or GC, which concern no attachment. Raises CniError."""
        self._call(command, network, plugin, values, _NOBODY)

    def _call(
        self,
        command: str,
        network: NetworkConfig,
        plugin: PluginConfig,
        values: Mapping[str, Any],
        parameters: RuntimeConf,
    ) -> bytes:
        env = _environment(command, self.path, parameters)
        return self._run(plugin.type, env, _configuration(network, plugin, values))

    def _run(self, plugin: str, env: Mapping[str, str], stdin: bytes) -> bytes:
        executable = self.find(plugin)
        if executable is not None and not self.in_process:
            return execute(executable, env, stdin, deadline=self.deadline)
        from pycni.sdk.invoke import call

        return call(plugin, env, stdin)


def _environment(command: str, path: Sequence[str], parameters: RuntimeConf) -> dict[str, str]:
    """The caller's whole environment with the six variables of the call, empty where there is no value (P-505)."""
    return {
        **os.environ,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": parameters.container_id,
        "CNI_NETNS": parameters.netns,
        "CNI_ARGS": parameters.cni_args,
        "CNI_IFNAME": parameters.ifname,
        "CNI_PATH": ":".join(path),
    }


def _configuration(network: NetworkConfig, plugin: PluginConfig, values: Mapping[str, Any]) -> bytes:
    """The plugin's object as it stands on disk, under the network's name and version, with some `values` (P-441).

    `capabilities` stays behind: it is addressed to the runtime (SPEC section 3; P-444).
    """
    values = {"name": network.name, "cniVersion": network.cni_version, **values}
    replaced = {key.casefold() for key in values} | {"capabilities"}
    document = {key: value for key, value in plugin.document.items() if key.casefold() not in replaced}
    return go_json.dumps_compact({**document, **values}, sort_keys=True).encode()
