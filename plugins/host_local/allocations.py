"""What a store holds, to be read and changed under its lock."""

import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from pycni.sdk import Address, parse_ip

from .allocator import Choice
from .claim import Claim
from .holder import Holder
from .owners import Addresses, Owners

_PROBES = 8  # addresses to ask for one by one before the directory is listed
_TORN_AFTER = 300.0  # seconds after which nobody is about to fill an empty file
_FIRST_OF_ADDRESS = frozenset("0123456789abcdef:")
_READ_SIZE, _REST = 1 << 12, 1 << 17  # the longest value of an environment variable, and so of a container id


class Allocations:
    """The allocation files in a directory. It answers as `Taken` which addresses are held, and by whom."""

    def __init__(self, path: str, directory: int, owners: Owners) -> None:
        self._path = path
        self._directory = directory
        self._owners = owners
        self._changed = False
        self._probes = 0
        self._names: frozenset[str] | None = None

    def __contains__(self, address: object) -> bool:
        """Whether somebody holds the address: its file is there, whatever it says (HL-34)."""
        if self._names is None and self._probes < _PROBES:
            self._probes += 1
            return self._exists(str(address))
        if self._names is None:
            self._names = frozenset(os.listdir(self._directory))
        return address in self._names

    def holder(self, address: str) -> str:
        """Who holds an address, in words."""
        content = self._content(address)
        who = Holder.parse(content or b"")
        if who is None:
            return f"nobody that CNI knows; {self._path}/{address} is {'empty' if content == b'' else 'foreign'}"
        return str(who)

    def held_by(self, holder: Holder) -> Addresses:
        """The addresses of an attachment, those included that an old plugin noted for its container (HL-30)."""
        return self._find(holder) + self._find(holder.legacy)

    def last_reserved(self, set_index: int) -> Address | None:
        """The address that a range set gave last; None if nothing sensible is noted."""
        content = self._content(f"last_reserved_ip.{set_index}")
        with suppress(ValueError):
            return parse_ip(os.fsdecode(content or b"").strip())
        return None

    def reserve(self, choices: Iterable[Choice], claim: Claim) -> None:
        """Take the chosen addresses, all of them or none. Raises FileExistsError for one that is taken."""
        held, taken = self._find(claim.holder), list[str]()
        self._changed = True
        try:
            for choice in choices:
                name = str(choice.address)
                claim.take(name)
                taken.append(name)
                self._write(f"last_reserved_ip.{choice.set_index}", name)
        except BaseException:
            self._unlink(taken)
            raise
        self._owners.put(claim.holder, (*held, *taken))

    def release(self, holder: Holder, only: Collection[str] | None = None) -> Addresses:
        """Free the addresses of an attachment (of those, `only` the given ones), and say which.

        If it has none, the ones that an old plugin noted for its container alone are freed (HL-37).
        """
        for who in (holder, holder.legacy):
            if held := self._find(who):
                addresses = tuple(address for address in held if only is None or address in only)
                self._unlink(addresses)
                self._owners.put(who, [address for address in held if address not in addresses])
                return addresses
        return ()

    def torn(self) -> Addresses:
        """Addresses whose files a crash left empty, and that so belong to nobody."""
        contents = self._contents()
        return tuple(address for address in contents if not contents[address] and self._age(address) > _TORN_AFTER)

    def free_torn(self) -> Addresses:
        """Free those, and say which they were."""
        torn = self.torn()
        self._unlink(torn)
        if self._names is not None:
            self._names -= frozenset(torn)
        return torn

    def collect(self, valid: Collection[Holder]) -> Addresses:
        """Free what no valid attachment holds, and what is torn; say which addresses that were."""
        containers = {holder.container_id for holder in valid}
        owners = _by_holder(self._contents())
        stale = {
            holder
            for holder in owners
            if (holder not in valid if holder.ifname else holder.container_id not in containers)
        }
        garbage = tuple(address for holder in stale for address in owners[holder])
        self._unlink(garbage)
        self._owners.replace({holder: addresses for holder, addresses in owners.items() if holder not in stale})
        return (*garbage, *self.free_torn())

    def settle(self) -> None:
        """Bring the cache of owners in step; to be called last."""
        if self._changed and self._owners.in_step:
            self._owners.seal()

    def _find(self, holder: Holder) -> Addresses:
        if self._owners.in_step:
            addresses = self._owners.find(holder)
            if all(self._content(address) == holder.content for address in addresses):
                return addresses
        self._owners.replace(_by_holder(self._contents()))
        self._changed = True
        return self._owners.find(holder)

    def _contents(self) -> dict[str, bytes]:
        """What every allocation file says. This is the one place that opens all of them."""
        names = filter(_is_address, os.listdir(self._directory))
        return {name: content for name in names if (content := self._content(name)) is not None}

    def _content(self, name: str) -> bytes | None:
        """What a file says, without white space around it; None if it is not there or no readable file."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self._directory)
        except OSError:
            return None
        try:
            content = os.read(file, _READ_SIZE)
            if len(content) == _READ_SIZE:
                content += os.read(file, _REST)
            return content.strip()
        except OSError:
            return None
        finally:
            os.close(file)

    def _write(self, name: str, text: str) -> None:
        # Not O_TRUNC: ext4 takes that for a replacement to be made safe, and starts writing to disk.
        file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=self._directory)
        try:
            length = os.write(file, text.encode("ascii"))
            if os.fstat(file).st_size > length:
                os.ftruncate(file, length)
        finally:
            os.close(file)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _age(self, name: str) -> float:
        """Seconds since the file was written."""
        return time.time() - os.stat(name, dir_fd=self._directory).st_mtime

    def _unlink(self, names: Iterable[str]) -> None:
        """Remove all that can be removed, then raise the first OSError there was."""
        self._changed = True
        first_error: OSError | None = None
        for name in names:
            try:
                os.unlink(name, dir_fd=self._directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                first_error = first_error or error
        if first_error:
            self._owners.in_step = False
            raise first_error


def _is_address(name: str) -> bool:
    if name[0] not in _FIRST_OF_ADDRESS:
        return False
    try:
        return str(parse_ip(name)) == name
    except ValueError:
        return False


def _by_holder(contents: Mapping[str, bytes]) -> dict[Holder, Addresses]:
    owners: dict[Holder, Addresses] = {}
    for address, content in contents.items():
        if holder := Holder.parse(content):
            owners[holder] = (*owners.get(holder, ()), address)
    return owners
