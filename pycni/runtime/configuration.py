"""Network configurations as the administrator wrote them: one plugin object, or a list of them under a name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol import go_json, version
from pycni.protocol.errors import ConfigError
from pycni.runtime import problems

Document = Mapping[str, Any]


@dataclass(frozen=True)
class PluginConfig:
    """The configuration of one plugin; everything that the runtime does not know is passed on as it is."""

    type: str
    name: str = ""
    cni_version: str = ""
    capabilities: frozenset[str] = frozenset()  # what it declares true
    ipam: str = ""  # the type of its IPAM plugin
    document: Document = field(default_factory=dict, repr=False)
    raw: bytes = field(default=b"", repr=False)  # as read; what the cache keeps of a single configuration

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Read one plugin object. Raises ConfigError."""
        document = _decode(raw, "error parsing configuration")
        return replace(cls.of(document), raw=raw.encode() if isinstance(raw, str) else raw)

    @classmethod
    def of(cls, document: object) -> Self:
        """One plugin object that has been decoded already. Raises ConfigError."""
        for problem in problems.of_plugin(document):
            raise ConfigError(f"error parsing configuration: {problem}")
        assert isinstance(document, Mapping)
        known = go_json.select_members(document, ("type", "name", "cniVersion", "capabilities", "ipam"))
        return cls(
            type=known["type"],
            name=known.get("name", ""),
            cni_version=known.get("cniVersion", ""),
            capabilities=frozenset(name for name, wanted in known.get("capabilities", {}).items() if wanted),
            ipam=go_json.select_members(known.get("ipam", {}), ("type",)).get("type", ""),
            document=document,
            raw=go_json.dumps_compact(document, sort_keys=True).encode(),
        )

    def with_values(self, values: Document) -> Self:
        """The same with other values of some keys. Raises ConfigError, and ValueError for an empty key or value."""
        for key, value in values.items():
            if not key:
                raise ValueError("keys cannot be empty")
            if value is None:
                raise ValueError(f"key '{key}' value must not be nil")
        return self.of({**self.document, **values})

    def as_network(self) -> "NetworkConfig":
        """A network of this plugin alone, under the plugin's own name and version."""
        return NetworkConfig(name=self.name, cni_version=self.cni_version, plugins=(self,), raw=self.raw)


@dataclass(frozen=True)
class NetworkConfig:
    """A network configuration list: a name, a version, and the plugins in the order of ADD."""

    name: str
    cni_version: str = ""
    plugins: tuple[PluginConfig, ...] = ()
    disable_check: bool = False
    disable_gc: bool = False
    only_inlined_plugins: bool = False  # loadOnlyInlinedPlugins
    raw: bytes = field(default=b"", repr=False)  # the list as read, without what a folder added

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Read a configuration list. Raises ConfigError."""
        document = _decode(raw, "error parsing configuration list") or {}
        for problem in problems.of_list(document):
            raise ConfigError(f"error parsing configuration list: {problem}")
        return cls(
            name=document["name"],
            cni_version=_chosen_version(document),
            plugins=tuple(PluginConfig.of(plugin) for plugin in document.get("plugins", ())),
            disable_check=bool(problems.switch(document.get("disableCheck", False))),
            disable_gc=bool(problems.switch(document.get("disableGC", False))),
            only_inlined_plugins=bool(problems.switch(document.get("loadOnlyInlinedPlugins", False))),
            raw=raw.encode() if isinstance(raw, str) else raw,
        )

    @classmethod
    def from_plugin(cls, plugin: PluginConfig) -> Self:
        """The list that a file with a single plugin stands for (P-411)."""
        document = {"cniVersion": plugin.cni_version, "name": plugin.name, "plugins": [plugin.document]}
        return cls(
            name=plugin.name,
            cni_version=plugin.cni_version,
            plugins=(plugin,),
            raw=go_json.dumps_compact(document, sort_keys=True).encode(),
        )

    def with_plugins(self, more: Iterable[PluginConfig]) -> Self:
        """The same with more plugins at its end."""
        return replace(self, plugins=(*self.plugins, *more))


def _decode(raw: bytes | str, context: str) -> Any:
    try:
        return go_json.loads(raw)
    except ValueError as error:
        cause = str(error) if raw.strip() else "unexpected end of JSON input"
        raise ConfigError(f"{context}: {cause}") from None


def _chosen_version(document: Document) -> str:
    """The highest version that the list offers and we know; without cniVersions, its cniVersion as it is (P-406)."""
    alone: str = document.get("cniVersion", "")
    if "cniVersions" not in document:
        return alone
    offered = [text for text in (*document["cniVersions"], alone) if text]
    return max((text for text in offered if version.at_least(version.NEWEST, text)), key=version.parse, default=alone)
