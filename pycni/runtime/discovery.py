"""The directory of network configurations: which files count, in which order, and which network is in which."""

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
class Found:
    """One configuration file: the network in it, or why there is none."""

    file: Path
    network: NetworkConfig | None = None
    error: CniError | None = None


def files(directory: str | os.PathLike[str], *extensions: str) -> list[Path]:
    """The files with these extensions, in byte order of their names; none if there is no directory (P-400, P-401).

    The extension is all from the last dot on, so `.conf` alone has one. Raises CniError, code 5.
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
    """The network of a `.conflist`, with the plugins of its folder (P-412). Raises CniError."""
    network = _read(file, NetworkConfig.parse)
    if not network.only_inlined_plugins:
        network = network.with_plugins(_folder_plugins(file.parent, network.name))
    if not network.plugins:
        raise ConfigError("no plugin configs found", details=f"{file} names no plugins")
    return network


def load_single(file: Path) -> NetworkConfig:
    """The network of a `.conf` or `.json`, which holds one plugin (P-411). Raises CniError."""
    return NetworkConfig.from_plugin(_read(file, PluginConfig.parse))


def load(file: Path) -> NetworkConfig:
    """The network of a file of any of the three kinds. Raises CniError."""
    return load_list(file) if file.name.endswith(LISTS) else load_single(file)


def find_network(directory: str | os.PathLike[str], name: str) -> NetworkConfig:
    """The network called `name`: all lists are asked in order, then all single plugins (P-402). Raises CniError.

    A file that cannot be read ends the search if it comes before the match.
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


def all_networks(directory: str | os.PathLike[str]) -> Iterator[Found]:
    """Every configuration file of the directory in the order in which `find_network` asks them."""
    for file in (*files(directory, *LISTS), *files(directory, *SINGLES)):
        try:
            yield Found(file, network=load(file))
        except CniError as error:
            yield Found(file, error=error)


def _counts(entry: "os.DirEntry[str]", extensions: tuple[str, ...]) -> bool:
    # A link to a directory counts; reading it fails, as it does in libcni.
    return entry.name[max(entry.name.rfind("."), 0) :] in extensions and not entry.is_dir(follow_symlinks=False)


def _folder_plugins(directory: Path, network: str) -> list[PluginConfig]:
    try:
        names.check_network_name(network)
    except CniError:
        return []  # no path is built from what may not be a name; ADD will say so
    return [_read(file, PluginConfig.parse) for file in files(directory / network, ".conf")]


def _read(file: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(file.read_bytes())
    except OSError as error:
        raise CniError(f"error reading {file}: {error.strerror}", code=Code.IO_FAILURE) from None
    except ConfigError as error:
        raise ConfigError(error.msg, code=error.code, details=error.details or f"in {file}") from None
