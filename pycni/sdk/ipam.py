"""IPAM: the plugin that hands out addresses, asked by the one that makes the interface (SPEC section 4)."""

from collections.abc import Callable

from pycni.kernel.journal import Journal
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError
from pycni.protocol.request import Request
from pycni.sdk.lease import Lease

# A DHCP client gives an address back over its link; all others may give it to the next as soon as nobody has it.
_BY_LINK = frozenset({"dhcp"})

# Has a plugin of this type do what the request asks, and returns what ADD made; see invoke.py.
Invoke = Callable[[str, Request], VersionedResult | None]


class IpamDelegate:
    """The plugin named by `ipam.type`; without one everything here does nothing."""

    def __init__(self, plugin: str, request: Request, invoke: Invoke, journal: Journal) -> None:
        self._plugin = plugin
        self._request = request
        self._invoke = invoke
        self._journal = journal
        self._deleted = self._collected = False

    @property
    def uses_link(self) -> bool:
        """Whether the plugin works by the link that its addresses are for, and may change it."""
        return self._plugin in _BY_LINK

    def add(self) -> Lease:
        """Ask for addresses; they are given back if the call fails. Raises CniError if there are none."""
        if not self._plugin:
            return Lease()
        return self._journal.change(f"ask {self._plugin} for addresses", self._ask, self._release)

    def check(self) -> None:
        """Have the plugin confirm that the addresses are still ours."""
        if self._plugin:
            self._run("CHECK")

    def delete(self) -> None:
        """Give the addresses back, unless that has been done."""
        if self._plugin and not self._deleted:
            self._deleted = True
            self._journal.attempt(f"give the addresses back to {self._plugin}", self._release)

    def delete_before_link(self) -> None:
        """Give them back now if the link, which goes next, is needed for that."""
        if self.uses_link:
            self.delete()

    def status(self) -> None:
        """Raise what the plugin answers if it is not ready."""
        if self._plugin:
            self._run("STATUS")

    def gc(self) -> None:
        """Have the plugin take back what belongs to no valid attachment, unless that has been done."""
        if self._plugin and not self._collected:
            self._collected = True
            self._journal.attempt(f"let {self._plugin} collect garbage", lambda: self._run("GC"))

    def gc_before_links(self) -> None:
        """Have it do so now if the links, which go next, are needed for that."""
        if self.uses_link:
            self.gc()

    def _ask(self) -> Lease:
        try:
            answer = self._run("ADD")
            lease = Lease.from_result(answer.result) if answer else Lease()
            if not lease.ips:
                raise CniError("IPAM plugin returned missing IP config", details=f"{self._plugin} gave no address")
        except (CniError, ValueError) as error:
            if isinstance(error, CniError) and error.rolled_back:
                raise  # a DEL would free what an earlier ADD of this attachment holds
            # Whatever it may have reserved before it failed is given back (SPEC section 4).
            try:
                self._release()
            except CniError as second:
                error.add_note(f"giving the addresses back failed too: {second}")
            raise
        return lease

    def _release(self) -> None:
        self._run("DEL")

    def _run(self, command: str) -> VersionedResult | None:
        return self._invoke(self._plugin, self._request.with_command(command))
