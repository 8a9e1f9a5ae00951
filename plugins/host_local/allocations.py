"""The allocation files of a store. Read and change them under its lock."""

import os
import socket
import time
from collections.abc import Collection, Iterable
from contextlib import suppress

from pycni.sdk import Address, parse_ip

from .allocator import ChosenAddress
from .attachment_id import AttachmentId
from .owner_index import Addresses, OwnerIndex
from .reservation import Reservation

_MAX_PROBES = 8  # addresses that are tested one by one before the directory is listed
_EMPTY_FILE_AGE = 300.0  # seconds after which an empty file is the remainder of a crash
_FIRST_OF_ADDRESS = frozenset("0123456789abcdef:")
_READ_SIZE, _REST = 1 << 12, 1 << 17  # together at least the longest container id: an environment variable


class AllocationFiles:
    """The allocation files in a directory. It implements `ReservedAddresses`."""

    def __init__(self, path: str, directory: int, owners: OwnerIndex) -> None:
        self._path = path
        self._directory = directory
        self._owners = owners
        self._changed = False
        self._probes = 0
        self._names: frozenset[str] | None = None

    def __contains__(self, address: object) -> bool:
        """Return whether the address is reserved: its file exists, whatever it contains."""
        if self._names is None and self._probes < _MAX_PROBES:
            self._probes += 1
            return self._exists(str(address))
        if self._names is None:
            self._names = frozenset(os.listdir(self._directory))
        return address in self._names

    def describe_owner(self, address: str) -> str:
        """Return a description of the owner of an address."""
        content = self._content(address)
        owner = AttachmentId.parse(content or b"")
        if owner is None:
            problem = "is empty" if content == b"" else "was not written by a CNI plugin"
            return f"an unknown owner: {self._path}/{address} {problem}"
        return str(owner)

    def addresses_of(self, owner: AttachmentId) -> Addresses:
        """Return the addresses of an attachment, including those that old versions recorded for its container only."""
        return self._find(owner) + self._find(owner.legacy)

    def last_reserved(self, set_index: int) -> Address | None:
        """Return the last reserved address of a range set; None if it is not recorded."""
        content = self._content(f"last_reserved_ip.{set_index}")
        with suppress(ValueError):
            return parse_ip(os.fsdecode(content or b"").strip())
        return None

    def reserve(self, chosen: Iterable[ChosenAddress], reservation: Reservation) -> None:
        """Reserve all of the chosen addresses or none. Raise FileExistsError if one is reserved already."""
        held, reserved = self._find(reservation.owner), list[str]()
        self._changed = True
        try:
            for one in chosen:
                name = str(one.address)
                reservation.reserve(name)
                reserved.append(name)
                self._write(f"last_reserved_ip.{one.set_index}", name)
        except BaseException:
            self._unlink(reserved)
            raise
        self._owners.put(reservation.owner, (*held, *reserved))

    def release(self, owner: AttachmentId, only: Collection[str] | None = None) -> Addresses:
        """Free the addresses of an attachment, or with `only`, those of them that it contains. Return the freed ones.

        If the attachment has none, free those that old versions recorded for its container only.
        """
        for attachment in (owner, owner.legacy):
            if held := self._find(attachment):
                addresses = tuple(address for address in held if only is None or address in only)
                self._unlink(addresses)
                self._owners.put(attachment, [address for address in held if address not in addresses])
                return addresses
        return ()

    def empty_files(self) -> Addresses:
        """Return the addresses whose files a crash left empty."""
        newest = time.time() - _EMPTY_FILE_AGE
        with os.scandir(self._directory) as entries:
            files = [entry for entry in entries if _is_address(entry.name) and entry.is_file(follow_symlinks=False)]
            states = [(entry.name, entry.stat(follow_symlinks=False)) for entry in files]
        return tuple(name for name, state in states if not state.st_size and state.st_mtime < newest)

    def free_empty_files(self) -> Addresses:
        """Remove the files that a crash left empty. Return their addresses."""
        empty = self.empty_files()
        self._unlink(empty)
        if self._names is not None:
            self._names -= frozenset(empty)
        return empty

    def collect(self, valid: Collection[AttachmentId]) -> Addresses:
        """Free the addresses of stale attachments, and empty files. Return the freed addresses."""
        containers = {owner.container_id for owner in valid}
        self._owners.rebuild()
        self._changed = True
        owners: dict[AttachmentId, list[str]] = {}
        for owner, name in self._owners.all():
            if _is_address(name):
                owners.setdefault(owner, []).append(name)
        stale = {
            owner for owner in owners if (owner not in valid if owner.ifname else owner.container_id not in containers)
        }
        stale_addresses = tuple(address for owner in stale for address in owners[owner])
        self._unlink(stale_addresses)
        for owner in stale:
            self._owners.put(owner, ())
        return (*stale_addresses, *self.free_empty_files())

    def finish(self) -> None:
        """Mark the owner index as valid after changes, and close it. Call it last."""
        try:
            if self._changed and self._owners.is_valid:
                self._owners.seal()
        finally:
            self._owners.close()

    def _find(self, owner: AttachmentId) -> Addresses:
        if self._owners.is_valid:
            addresses = self._owners.find(owner)
            if all(self._content(address) == owner.content for address in addresses):
                return addresses
        self._owners.rebuild()
        self._changed = True
        return tuple(filter(_is_address, self._owners.find(owner)))

    def _content(self, name: str) -> bytes | None:
        """Return the stripped content of a file; None if it does not exist or cannot be read."""
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
        # Without O_TRUNC: ext4 treats truncation as a replacement of the file, and starts writing it to disk.
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

    def _unlink(self, names: Iterable[str]) -> None:
        """Remove the files, also after a failure. Then raise the first OSError."""
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
            self._owners.is_valid = False
            raise first_error


def _is_address(name: str) -> bool:
    if name[0] not in _FIRST_OF_ADDRESS:
        return False
    with suppress(OSError):
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        if socket.inet_ntop(family, socket.inet_pton(family, name)) == name:
            return family == socket.AF_INET or "." not in name or _is_canonical(name)
    return family == socket.AF_INET6 and _is_canonical(name)


def _is_canonical(name: str) -> bool:
    """Return whether this is how an address is written, also where inet_ntop() writes it in another way."""
    try:
        return str(parse_ip(name)) == name
    except ValueError:
        return False
