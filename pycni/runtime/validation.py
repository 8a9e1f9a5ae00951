"""Validation of configuration files: format, plugin executables and versions, and plugin options."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pycni.protocol import go_json, names, version
from pycni.protocol.errors import CniError
from pycni.runtime import discovery, problems
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.installed_runtimes import InstalledRuntime, installed_runtimes
from pycni.runtime.plugins import Plugins
from pycni.runtime.problems import Problem

_PATH = re.compile(r"(?P<path>[A-Za-z_$][\w.$/\[\]-]*): (?P<text>.*)", re.DOTALL)


class Validator:
    """Validates configuration files. It remembers their networks in order to report duplicate names."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._files: dict[str, Path] = {}  # by network
        self._versions: dict[str, tuple[str, ...] | CniError] = {}  # by type

    def file(self, file: Path) -> list[Problem]:
        """Return all problems of one file."""
        try:
            document = go_json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            return [Problem("", getattr(error, "strerror", None) or f"not valid JSON: {error}")]
        look = self._of_list if file.name.endswith(discovery.LISTS) else self._of_single
        return list(dict.fromkeys(look(file, document)))  # a plugin and its delegate may say the same

    def _of_list(self, file: Path, document: Any) -> Iterator[Problem]:
        found = list(problems.of_list(document))
        yield from found
        if found:
            return
        try:
            network = discovery.load_list(file)
        except CniError as error:
            yield Problem("", str(error))
            return
        yield from self._of_network(file, network)
        yield from self._of_runtimes(document.get("cniVersion", ""))
        for i, plugin in enumerate(network.plugins):
            where = (
                f"plugins[{i}]"
                if i < len(document.get("plugins", ()))
                else f"plugin {plugin.type} of folder {network.name}"
            )
            for problem in self._of_plugin(network, plugin):
                yield problem.inside(where)

    def _of_single(self, file: Path, document: Any) -> Iterator[Problem]:
        found = list(problems.of_plugin(document))
        if found and isinstance(document, Mapping) and "plugins" in document:
            yield Problem("", f"this is a configuration list: rename it to {file.stem}.conflist")
            return
        yield from found
        if found:
            return
        network = NetworkConfig.from_plugin(PluginConfig.of(document))
        yield from self._of_network(file, network)
        yield from self._of_runtimes(network.cni_version)
        yield from self._of_plugin(network, network.plugins[0])

    def _of_network(self, file: Path, network: NetworkConfig) -> Iterator[Problem]:
        try:
            names.check_network_name(network.name)
        except CniError as error:
            yield Problem("name", str(error))
        if (network.cni_version or version.DEFAULT) not in version.ALL:
            yield Problem(
                "cniVersion", f'unknown version "{network.cni_version}": must be one of {", ".join(version.ALL)}'
            )
        first = self._files.setdefault(network.name, file)
        if first != file and first.parent == file.parent:
            yield Problem("name", f'duplicate network name "{network.name}": runtimes use {first.name}')

    def _of_runtimes(self, cni_version: str) -> Iterator[Problem]:
        """Yield a problem for each installed runtime that is too old for the cniVersion of a configuration.

        Such a runtime ignores cniVersions, so newer versions belong there.
        """
        if cni_version not in version.ALL:
            return
        for runtime in self._runtimes:
            if not version.at_least(runtime.cni_version, cni_version):
                yield Problem(
                    "cniVersion",
                    f"{runtime.name} {runtime.version} supports CNI {runtime.cni_version} at most, not {cni_version}: "
                    f'write "cniVersion": "{runtime.cni_version}", "cniVersions": ["{runtime.cni_version}", '
                    f'"{cni_version}"]',
                )

    @cached_property
    def _runtimes(self) -> tuple[InstalledRuntime, ...]:
        return tuple(installed_runtimes())

    def _of_plugin(self, network: NetworkConfig, plugin: PluginConfig) -> Iterator[Problem]:
        yield from self._of_type(network, plugin.type, "type")
        yield from self._of_model(network, plugin, plugin.type)
        if plugin.ipam:
            yield from self._of_type(network, plugin.ipam, "ipam.type")
            yield from self._of_model(network, plugin, plugin.ipam)

    def _of_type(self, network: NetworkConfig, plugin: str, where: str) -> Iterator[Problem]:
        if plugin not in self._versions:
            try:
                self._versions[plugin] = self._plugins.versions(plugin)
            except CniError as error:
                self._versions[plugin] = error
        spoken = self._versions[plugin]
        if isinstance(spoken, CniError):
            yield Problem(where, str(spoken))
        elif (network.cni_version or version.DEFAULT) not in spoken:
            yield Problem(
                where, f"{plugin} supports cniVersion {', '.join(spoken)}, not {network.cni_version or version.DEFAULT}"
            )

    def _of_model(self, network: NetworkConfig, plugin: PluginConfig, model_of: str) -> Iterator[Problem]:
        """Yield the options that the registered plugin would reject; nothing for types of other projects."""
        from pycni.sdk import registry

        if registry.find(model_of) is None:
            return
        try:
            model = registry.load(model_of).config
        except CniError as error:
            yield Problem("type", str(error))
            return
        document = {**plugin.document, "name": network.name, "cniVersion": network.cni_version}
        config, complaints = model.read_leniently(document)
        for complaint in complaints or config.problems():
            match = _PATH.fullmatch(complaint)
            yield Problem(match["path"], match["text"]) if match else Problem("", complaint)
