"""Whole files of configuration looked at by everything that is known: the format, the plugins, their models."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pycni.protocol import go_json, names, version
from pycni.protocol.errors import CniError
from pycni.runtime import discovery, problems
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.plugins import Plugins
from pycni.runtime.problems import Problem

_PATH = re.compile(r"(?P<path>[A-Za-z_$][\w.$/\[\]-]*): (?P<text>.*)", re.DOTALL)


class Lint:
    """Says what is wrong with configuration files; remembers their networks, so that doubles are found."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._files: dict[str, Path] = {}  # by network
        self._versions: dict[str, tuple[str, ...] | CniError] = {}  # by type

    def file(self, file: Path) -> list[Problem]:
        """Everything that is wrong with one file."""
        try:
            document = go_json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            return [Problem("", getattr(error, "strerror", None) or f"no JSON: {error}")]
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
        for i, plugin in enumerate(network.plugins):
            where = f"plugins[{i}]" if i < len(document.get("plugins", ())) else f"plugin {plugin.type} of the folder"
            for problem in self._of_plugin(network, plugin):
                yield problem.inside(where)

    def _of_single(self, file: Path, document: Any) -> Iterator[Problem]:
        found = list(problems.of_plugin(document))
        if found and isinstance(document, Mapping) and "plugins" in document:
            yield Problem("", f"this is a list: {file.stem}.conflist would be its name")
            return
        yield from found
        if found:
            return
        network = NetworkConfig.from_plugin(PluginConfig.of(document))
        yield from self._of_network(file, network)
        yield from self._of_plugin(network, network.plugins[0])

    def _of_network(self, file: Path, network: NetworkConfig) -> Iterator[Problem]:
        try:
            names.check_network_name(network.name)
        except CniError as error:
            yield Problem("name", str(error))
        if (network.cni_version or version.DEFAULT) not in version.ALL:
            yield Problem("cniVersion", f'"{network.cni_version}" is none of {", ".join(version.ALL)}')
        first = self._files.setdefault(network.name, file)
        if first != file and first.parent == file.parent:
            yield Problem("name", f'network "{network.name}" is never found here: {first.name} has it already')

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
            yield Problem(where, f"{plugin} speaks {', '.join(spoken)}, not {network.cni_version or version.DEFAULT}")

    def _of_model(self, network: NetworkConfig, plugin: PluginConfig, model_of: str) -> Iterator[Problem]:
        """What the plugin registered for the type would refuse; nothing of types that only others know."""
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
        for complaint in complaints or config.complaints():
            match = _PATH.fullmatch(complaint)
            yield Problem(match["path"], match["text"]) if match else Problem("", complaint)
