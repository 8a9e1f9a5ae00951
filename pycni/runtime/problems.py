"""Format errors of a network configuration, each with its path in the document.

`configuration` rejects a document at the first problem; `pycni validate` lists all.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pycni.protocol import go_json, version
from pycni.protocol.json_object import JsonObject
from pycni.protocol.result import Dns

SWITCHES = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
_PLUGIN_KEYS = ("cniVersion", "name", "type", "capabilities", "ipam", "dns", "prevResult", "cni.dev/valid-attachments")


class Problem(NamedTuple):
    """One error: its path, such as `plugins[0].ipam` (empty for the whole document), and its text."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text

    def inside(self, path: str) -> "Problem":
        """Return the problem with `path` prepended, for an enclosing document."""
        return Problem(".".join(filter(None, (path, self.path))), self.text)


def of_plugin(document: object) -> Iterator[Problem]:
    """Yield the problems of one plugin object. Keys match in any letter case, as in Go."""
    if document is None:
        document = {}
    if not isinstance(document, Mapping):
        yield Problem("", f"a plugin must be an object, not {_short(document)}")
        return
    known = go_json.select_members(document, _PLUGIN_KEYS)
    for key in ("cniVersion", "name", "type"):
        if not isinstance(known.get(key, ""), str):
            yield Problem(key, f"must be a string, not {_short(known[key])}")
    if known.get("type", "") == "":
        yield Problem("", "missing 'type'")
    yield from _of_capabilities(known.get("capabilities", {}))
    ipam = known.get("ipam", {})
    if not isinstance(ipam, Mapping):
        yield Problem("ipam", f"must be an object, not {_short(ipam)}")
    elif not isinstance(go_json.select_members(ipam, ("type",)).get("type", ""), str):
        yield Problem("ipam.type", "must be a string")
    try:
        Dns.parse(JsonObject(document, ("dns",)))
    except ValueError as error:
        yield Problem("", str(error))
    if not isinstance(known.get("prevResult", {}), Mapping):
        yield Problem("prevResult", f"must be an object, not {_short(known['prevResult'])}")
    if not isinstance(known.get("cni.dev/valid-attachments", []), list):
        yield Problem("cni.dev/valid-attachments", "must be a list")


def of_list(document: object) -> Iterator[Problem]:
    """Yield the problems of a network configuration list. Its own keys are case-sensitive, as in libcni."""
    if document is None:
        document = {}
    if not isinstance(document, Mapping):
        yield Problem("", f"a configuration list must be an object, not {_short(document)}")
        return
    if "name" not in document:
        yield Problem("", "no name")
    elif not isinstance(document["name"], str):
        yield Problem("name", f"invalid name type {_kind(document['name'])}")
    if not isinstance(document.get("cniVersion", ""), str):
        yield Problem("cniVersion", f"invalid cniVersion type {_kind(document['cniVersion'])}")
    yield from _of_versions(document)
    for key in SWITCHES:
        if key in document and switch(document[key]) is None:
            yield Problem(key, f"invalid value {_short(document[key])} for {key}: must be true or false")
    yield from _of_plugins(document)


def switch(value: object) -> bool | None:
    """Return the value of a boolean member, given as a boolean or as text in any letter case; None if invalid."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _of_capabilities(capabilities: object) -> Iterator[Problem]:
    if not isinstance(capabilities, Mapping):
        yield Problem("capabilities", f"must be an object of booleans, not {_short(capabilities)}")
        return
    for name, wanted in capabilities.items():
        if wanted is not None and not isinstance(wanted, bool):
            yield Problem(f"capabilities.{name}", f"must be true or false, not {_short(wanted)}")


def _of_versions(document: Mapping[str, Any]) -> Iterator[Problem]:
    if "cniVersions" not in document:
        return
    versions = document["cniVersions"]
    if not isinstance(versions, list):
        yield Problem("cniVersions", f"invalid type for cniVersions: {_kind(versions)}")
        return
    named = [(f"cniVersions[{i}]", text) for i, text in enumerate(versions)]
    if isinstance(document.get("cniVersion"), str):
        named.append(("cniVersion", document["cniVersion"]))
    for path, text in named:
        if not isinstance(text, str):
            yield Problem(path, f"a version must be a string, not {_short(text)}")
            continue
        try:
            version.parse(text)
        except ValueError as error:
            yield Problem(path, str(error))


def _of_plugins(document: Mapping[str, Any]) -> Iterator[Problem]:
    if "plugins" not in document:
        if switch(document.get("loadOnlyInlinedPlugins", False)):
            yield Problem("", "`loadOnlyInlinedPlugins` is true, and no 'plugins' key")
        return
    plugins = document["plugins"]
    if not isinstance(plugins, list):
        yield Problem("plugins", f"must be a list, not {_short(plugins)}")
    elif not plugins:
        yield Problem("plugins", "no plugins in list")
    else:
        for i, plugin in enumerate(plugins):
            yield from (problem.inside(f"plugins[{i}]") for problem in of_plugin(plugin))


def _short(value: object) -> str:
    text = go_json.dumps_compact(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _kind(value: object) -> str:
    return {type(None): "null", dict: "object", list: "list", bool: "boolean", str: "string"}.get(type(value), "number")
