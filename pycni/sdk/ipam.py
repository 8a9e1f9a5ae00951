"""Calls of the IPAM plugin, which assigns addresses, by the plugin that creates the interface (SPEC section 4)."""

from collections.abc import Callable

from pycni.kernel.journal import Journal
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError
from pycni.protocol.request import Request
from pycni.sdk.lease import Lease

# A DHCP client needs the link to release an address. The other IPAM plugins may assign a released address to another
# container at once, so with them the link is deleted first.
_NEED_LINK = frozenset({"dhcp"})

# Calls the plugin of a type with a request, and returns the result of ADD; see invoke.py.
Invoke = Callable[[str, Request], VersionedResult | None]


class IpamDelegate:
    """The IPAM plugin named by `ipam.type`, as `cni.ipam`. Without a type, all methods do nothing.

    lease = cni.ipam.add()
    cni.ipam.delete()
    """

    def __init__(self, plugin: str, request: Request, invoke: Invoke, journal: Journal) -> None:
        self._plugin = plugin
        self._request = request
        self._invoke = invoke
        self._journal = journal
        self._deleted = self._collected = False

    @property
    def uses_link(self) -> bool:
        """Whether the plugin needs the link that its addresses are for, and may change its MTU (dhcp)."""
        return self._plugin in _NEED_LINK

    def add(self) -> Lease:
        """Call ADD and return the addresses. They are released if this call fails later.

        Return an empty lease without an IPAM plugin. Raises CniError as the plugin reports it, or if it assigns no
        address.
        """
        if not self._plugin:
            return Lease()
        return self._journal.change(f"get addresses from {self._plugin}", self._add, self._release)

    def check(self) -> None:
        """Call CHECK. Raises CniError as the plugin reports it, for example if a reservation is lost."""
        if self._plugin:
            self._run("CHECK")

    def delete(self) -> None:
        """Release the addresses with DEL, once per call. A failure is reported at the end of the call."""
        if self._plugin and not self._deleted:
            self._deleted = True
            self._journal.attempt(f"release the addresses of {self._plugin}", self._release)

    def delete_before_link(self) -> None:
        """Release the addresses now if the plugin needs the link, which the caller is about to delete."""
        if self.uses_link:
            self.delete()

    def status(self) -> None:
        """Call STATUS. Raises CniError as the plugin reports it if it is not ready."""
        if self._plugin:
            self._run("STATUS")

    def gc(self) -> None:
        """Release the addresses of stale attachments with GC, once per call. A failure is reported at the end."""
        if self._plugin and not self._collected:
            self._collected = True
            self._journal.attempt(f"call GC of {self._plugin}", lambda: self._run("GC"))

    def gc_before_links(self) -> None:
        """Call GC now if the plugin needs the links, which the caller is about to delete."""
        if self.uses_link:
            self.gc()

    def _add(self) -> Lease:
        answer = self._run("ADD")
        lease = Lease.from_result(answer.result) if answer else Lease()
        if not lease.ips:
            raise CniError("IPAM plugin returned missing IP config", details=f"{self._plugin} assigned no address")
        return lease

    def _release(self) -> None:
        self._run("DEL")

    def _run(self, command: str) -> VersionedResult | None:
        return self._invoke(self._plugin, self._request.with_command(command))
