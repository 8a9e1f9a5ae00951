"""Discovery of network configurations in a directory: file selection, order, and lookup by network name."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pycni.protocol import names
from pycni.protocol.errors import CniError, Code, ConfigError
from pycni.runtime.configuration import NetworkConfig, PluginConfig

DEFAULT_DIRECTORY = "/etc/cni/net.d"
LISTS = (".conflist",)
SINGLES = (".conf", ".json")

_T = TypeVar("_T")


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file and the network in it, or the error that parsing it raised."""

    file: Path
    network: NetworkConfig | None = None
    error: CniError | None = None


def files(directory: str | os.PathLike[str], *extensions: str) -> list[Path]:
    """Return the files with these extensions, in byte order of their names; empty if the directory does not exist.

    The extension begins at the last dot, so a file named `.conf` has one. Raise CniError, code 5.
    """
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if _counts(entry, extensions)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CniError(f"cannot list {os.fspath(directory)}: {error.strerror}", code=Code.IO_FAILURE) from None
    return [Path(directory, name) for name in sorted(found, key=os.fsencode)]


def load_list(file: Path) -> NetworkConfig:
    """Return the network of a `.conflist`, with the plugins of its folder appended. Raise CniError.

    The folder is DIRECTORY/NETWORK/*.conf (SPEC section 1, loadOnlyInlinedPlugins).
    """
    network = _read(file, NetworkConfig.parse)
    if not network.only_inlined_plugins:
        network = network.with_plugins(_folder_plugins(file.parent, network.name))
    if not network.plugins:
        raise ConfigError("no plugin configs found", details=f"{file} names no plugins")
    return network


def load_single(file: Path) -> NetworkConfig:
    """Return the network of a `.conf` or `.json` file, which holds one plugin. Raise CniError."""
    return NetworkConfig.from_plugin(_read(file, PluginConfig.parse))


def load(file: Path) -> NetworkConfig:
    """Return the network of a `.conflist`, `.conf` or `.json` file. Raise CniError."""
    return load_list(file) if file.name.endswith(LISTS) else load_single(file)


def find_network(directory: str | os.PathLike[str], name: str) -> NetworkConfig:
    """Return the network called `name`. Raise CniError if there is none.

    All `.conflist` files are searched in order, then all `.conf` and `.json` files. An unreadable file before the match
    ends the search with an error, as in libcni.
    """
    lists, singles = files(directory, *LISTS), files(directory, *SINGLES)
    for file in (*lists, *singles):
        network = load(file)
        if network.name == name:
            return network
    where = os.fspath(directory)
    if not lists and not singles:
        raise ConfigError(f"no net configurations found in {where}")
    raise ConfigError(f'no net configuration with name "{name}" in {where}')


def all_networks(directory: str | os.PathLike[str]) -> Iterator[ConfigFile]:
    """Yield every configuration file of the directory, in the order in which `find_network` searches them."""
    for file in (*files(directory, *LISTS), *files(directory, *SINGLES)):
        try:
            yield ConfigFile(file, network=load(file))
        except CniError as error:
            yield ConfigFile(file, error=error)


def _counts(entry: "os.DirEntry[str]", extensions: tuple[str, ...]) -> bool:
    # A symbolic link to a directory is included; reading it fails, as in libcni.
    return entry.name[max(entry.name.rfind("."), 0) :] in extensions and not entry.is_dir(follow_symlinks=False)


def _folder_plugins(directory: Path, network: str) -> list[PluginConfig]:
    try:
        names.check_network_name(network)
    except CniError:
        return []  # never part of a path; ADD reports the invalid name
    return [_read(file, PluginConfig.parse) for file in files(directory / network, ".conf")]


def _read(file: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(file.read_bytes())
    except OSError as error:
        raise CniError(f"error reading {file}: {error.strerror}", code=Code.IO_FAILURE) from None
    except ConfigError as error:
        raise ConfigError(error.msg, code=error.code, details=error.details or f"in {file}") from None
