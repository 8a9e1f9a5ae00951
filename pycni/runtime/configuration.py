"""Parsed network configurations: a single plugin object, or a named list of plugins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pycni.protocol import go_json, version
from pycni.protocol.errors import ConfigError
from pycni.runtime import problems

Document = Mapping[str, Any]


@dataclass(frozen=True)
class PluginConfig:
    """The configuration of one plugin. Members that the runtime does not know are passed on unchanged."""

    type: str
    name: str = ""
    cni_version: str = ""
    capabilities: frozenset[str] = frozenset()  # the capabilities declared as true
    ipam: str = ""  # the type of its IPAM plugin
    document: Document = field(default_factory=dict, repr=False)
    raw: bytes = field(
        default=b"", repr=False
    )  # as read from the file; stored in the cache for a single-plugin configuration

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Parse the JSON of one plugin object. Raise ConfigError."""
        document = _decode(raw, "error parsing configuration")
        return replace(cls.of(document), raw=raw.encode() if isinstance(raw, str) else raw)

    @classmethod
    def of(cls, document: object) -> Self:
        """Return the configuration in a decoded plugin object. Raise ConfigError."""
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
        """Return a copy with some members replaced. Raise ConfigError; ValueError for an empty key or a None value."""
        for key, value in values.items():
            if not key:
                raise ValueError("keys cannot be empty")
            if value is None:
                raise ValueError(f"key '{key}' value must not be nil")
        return self.of({**self.document, **values})

    def as_network(self) -> "NetworkConfig":
        """Return a network that consists of this plugin, with the plugin's name and cniVersion."""
        return NetworkConfig(name=self.name, cni_version=self.cni_version, plugins=(self,), raw=self.raw)


@dataclass(frozen=True)
class NetworkConfig:
    """A network configuration list: name, cniVersion, and the plugins in ADD order (SPEC section 1)."""

    name: str
    cni_version: str = ""
    plugins: tuple[PluginConfig, ...] = ()
    disable_check: bool = False
    disable_gc: bool = False
    only_inlined_plugins: bool = False  # loadOnlyInlinedPlugins
    raw: bytes = field(default=b"", repr=False)  # the list as read from the file, without the plugins of its folder

    @classmethod
    def parse(cls, raw: bytes | str) -> Self:
        """Parse the JSON of a configuration list. Raise ConfigError."""
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
        """Return the list that a file with a single plugin is equivalent to."""
        document = {"cniVersion": plugin.cni_version, "name": plugin.name, "plugins": [plugin.document]}
        return cls(
            name=plugin.name,
            cni_version=plugin.cni_version,
            plugins=(plugin,),
            raw=go_json.dumps_compact(document, sort_keys=True).encode(),
        )

    def with_plugins(self, more: Iterable[PluginConfig]) -> Self:
        """Return a copy with `more` plugins appended."""
        return replace(self, plugins=(*self.plugins, *more))


def _decode(raw: bytes | str, context: str) -> Any:
    try:
        return go_json.loads(raw)
    except ValueError as error:
        cause = str(error) if raw.strip() else "unexpected end of JSON input"
        raise ConfigError(f"{context}: {cause}") from None


def _chosen_version(document: Document) -> str:
    """Return the highest version in cniVersions and cniVersion that pycni supports (SPEC section 1, cniVersions)."""
    alone: str = document.get("cniVersion", "")
    if "cniVersions" not in document:
        return alone
    offered = [text for text in (*document["cniVersions"], alone) if text]
    return max((text for text in offered if version.at_least(version.NEWEST, text)), key=version.parse, default=alone)
