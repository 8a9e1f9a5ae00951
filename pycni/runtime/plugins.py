"""Plugin lookup and execution: finds plugins by type, queries their versions, and calls them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pycni.protocol import go_json, version
from pycni.protocol.conversion import VersionedResult, parse_plugin_result
from pycni.protocol.errors import CniError
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.parameters import RuntimeConf
from pycni.sdk.execute import execute, find_executable

_NO_ATTACHMENT = RuntimeConf(container_id="", ifname="")
# Old plugins require all variables for VERSION too; libcni passes "dummy".
_DUMMY = RuntimeConf(container_id="", netns="dummy", ifname="dummy")


class Plugins:
    """The plugins in the directories of `path`. A plugin that runs longer than `deadline` seconds is killed.

    A type without an executable runs in this process if it is registered in this installation. With `in_process`, a
    plugin whose executable is a launcher of this installation runs in this process too.
    """

    def __init__(self, path: Sequence[str], deadline: float | None, *, in_process: bool = False) -> None:
        self.path = tuple(path)
        self.deadline = deadline
        self.in_process = in_process

    def find(self, plugin: str) -> str | None:
        """Return the path of the executable; None if the plugin runs in this process. Raise CniError if missing."""
        try:
            return find_executable(plugin, self.path)
        except CniError:
            from pycni.sdk import registry  # imports pydantic, which a runtime rarely needs

            if not plugin or registry.find(plugin) is None:
                raise
            return None

    def versions(self, plugin: str) -> tuple[str, ...]:
        """Return the CNI versions that a plugin supports (SPEC section 2, VERSION). Raise CniError."""
        stdin = go_json.dumps_compact({"cniVersion": version.NEWEST}).encode()
        try:
            stdout = self._run(plugin, _environment("VERSION", ["dummy"], _DUMMY), stdin)
        except CniError as error:
            if str(error) == "unknown CNI_COMMAND: VERSION":  # the plugin predates VERSION
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
        """Call ADD and return the result. `prev_result` is passed in the version in which it was returned."""
        document = None if prev_result is None else prev_result.to_document(prev_result.cni_version)
        stdout = self.attached("ADD", network, plugin, parameters, document)
        try:
            return parse_plugin_result(stdout, network.cni_version)
        except ValueError as error:
            raise CniError(str(error), details=f"plugin {plugin.type} returned an invalid result from ADD") from None

    def attached(
        self,
        command: str,
        network: NetworkConfig,
        plugin: PluginConfig,
        parameters: RuntimeConf,
        prev_result: Mapping[str, Any] | None,
    ) -> bytes:
        """Call ADD, CHECK or DEL and return the plugin's stdout. Raise CniError.

        Without `prev_result`, a prevResult in the configuration file is passed on unchanged.
        """
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
        """Call STATUS or GC, which have no attachment. Raise CniError."""
        self._call(command, network, plugin, values, _NO_ATTACHMENT)

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
    """Return this process's environment with all six CNI variables set; empty where there is no value."""
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
    """Return the stdin of a plugin: its configuration with the network's name and version, and `values` added.

    `capabilities` is removed: it is addressed to the runtime (SPEC section 3, deriving execution configuration).
    """
    values = {"name": network.name, "cniVersion": network.cni_version, **values}
    replaced = {key.casefold() for key in values} | {"capabilities"}
    document = {key: value for key, value in plugin.document.items() if key.casefold() not in replaced}
    return go_json.dumps_compact({**document, **values}, sort_keys=True).encode()
