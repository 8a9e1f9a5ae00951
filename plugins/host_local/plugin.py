"""host-local: allocate addresses from ranges that belong to this host, and record reservations in a directory.

ADD ── one address of each range set ──► /var/lib/cni/networks/<network>/10.1.0.2   (a file that names the owner)
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext

from pycni.sdk import Address, Attachment, CniError, Code, Dns, IpConfig, Network, Plugin, Result, parse_ip

from . import resolvconf
from .allocator import AllocationRequest, ChosenAddress, ExhaustedError, allocate, find_free
from .attachment_id import AttachmentId
from .config import HostLocalConfig
from .ranges import RangeSet
from .store import AddressStore, expect_writable

log = logging.getLogger(__name__)


class HostLocal(Plugin[HostLocalConfig]):
    """The host-local plugin. It changes only its store."""

    config = HostLocalConfig
    cni_args = ("IP",)

    def add(self, cni: Attachment[HostLocalConfig]) -> Result:
        """Reserve one address of every range set."""
        conf = cni.config
        sets, requested = conf.sets, conf.requested(cni.args)
        dns = _read_resolv_conf(conf.ipam.resolv_conf)
        ips = tuple(IpConfig(chosen.cidr, chosen.gateway) for chosen in self._reserve(cni, sets, requested))
        return Result(ips=ips, routes=conf.ipam.routes, dns=dns)

    def _reserve(
        self, cni: Attachment[HostLocalConfig], sets: Sequence[RangeSet], requested: Sequence[Address]
    ) -> Sequence[ChosenAddress]:
        """Choose the addresses and record the reservations, under the lock of the store."""
        owner = AttachmentId(cni.container_id, cni.ifname)
        with (
            AddressStore.ensure(cni.config.data_dir, cni.name) as store,
            store.prepare_reservation(owner) as reservation,
            store.locked() as allocations,
        ):
            held = [parse_ip(address) for address in allocations.addresses_of(owner)]
            last_reserved = [allocations.last_reserved(i) for i in range(len(sets))]
            request = AllocationRequest(cni.container_id, requested, held)
            try:
                chosen = allocate(sets, request, reserved=allocations, last_reserved=last_reserved)
            except ExhaustedError:
                if not allocations.free_empty_files():
                    raise
                chosen = allocate(sets, request, reserved=allocations, last_reserved=last_reserved)
            addresses = [str(one.address) for one in chosen]
            cni.journal.change(
                f"reserve {', '.join(addresses)}",
                lambda: allocations.reserve(chosen, reservation),
                lambda: _release(cni, only=addresses),
                atomic=True,
            )
        return chosen

    def check(self, cni: Attachment[HostLocalConfig]) -> None:
        """Raise CniError unless the addresses of prevResult are reserved for this interface."""
        sets, owner = cni.config.sets, AttachmentId(cni.container_id, cni.ifname)
        store = AddressStore.find(cni.config.data_dir, cni.name)
        if store is None:
            raise _not_found(cni)
        with store, store.locked() as allocations:
            held = allocations.addresses_of(owner)
            if not held:
                raise _not_found(cni)
            for ip in (ip.address.ip for ip in cni.prev_ips):
                if any(ip in set_ for set_ in sets) and str(ip) not in held:
                    raise CniError(
                        f"{ip} of {cni.ifname} is not reserved for container {cni.container_id}",
                        details=f"{ip} is reserved for {allocations.describe_owner(str(ip))}"
                        if str(ip) in allocations
                        else f"{ip} is free and can be allocated to another container: delete and add this one",
                    )

    def delete(self, cni: Attachment[HostLocalConfig]) -> None:
        """Free the addresses of this interface."""
        cni.journal.attempt(f"free the addresses of {cni.container_id} {cni.ifname}", lambda: _release(cni))

    def status(self, cni: Network[HostLocalConfig]) -> None:
        """Raise CniError, code 50, if the store is not writable or a range set has no free address."""
        if not cni.config.has_ipam:
            return
        sets = cni.config.sets
        expect_writable(cni.config.data_dir, cni.name)
        with AddressStore.find(cni.config.data_dir, cni.name) or nullcontext() as store:
            allocations = store.unlocked() if store else None
            for i, set_ in enumerate(sets):
                if find_free(set_, reserved=allocations or ()) is None and not (
                    allocations and allocations.empty_files()
                ):
                    full = ExhaustedError(set_)
                    raise CniError(
                        f"range set {i} is full: {full.msg}", code=Code.PLUGIN_NOT_AVAILABLE, details=full.details
                    )

    def gc(self, cni: Network[HostLocalConfig]) -> None:
        """Free the addresses of stale attachments, and allocation files that a crash left empty."""
        valid = {AttachmentId(owner.container_id, owner.ifname) for owner in cni.stale.valid}
        cni.journal.attempt(f"free the stale addresses of {cni.name}", lambda: _collect(cni, valid))


def _release(cni: Attachment[HostLocalConfig], only: Collection[str] | None = None) -> None:
    """Free the addresses of this interface, or with `only`, those of them that it contains."""
    if store := AddressStore.find(cni.config.data_dir, cni.name):
        with store, store.locked() as allocations:
            released = allocations.release(AttachmentId(cni.container_id, cni.ifname), only)
        log.debug("freed %s", ", ".join(released) or "nothing")


def _collect(cni: Network[HostLocalConfig], valid: Collection[AttachmentId]) -> None:
    if store := AddressStore.find(cni.config.data_dir, cni.name):
        with store, store.locked() as allocations:
            freed = allocations.collect(valid)
        log.info("GC of %s freed %s", cni.name, ", ".join(freed) or "nothing")


def _not_found(cni: Attachment[HostLocalConfig]) -> CniError:
    return CniError(
        f"host-local: Failed to find address added by container {cni.container_id}",
        details=f"{cni.config.data_dir}/{cni.name} has no reservation for its interface {cni.ifname}",
    )


def _read_resolv_conf(path: str) -> Dns:
    """Return the DNS settings of the file; none if it is not configured. Raise CniError if it cannot be read."""
    if not path:
        return Dns()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return resolvconf.parse(file.read())
    except OSError as error:
        raise CniError(
            f"open {path}: {(error.strerror or '').lower()}",
            details="set resolvConf to a readable file in the format of resolv.conf(5)",
        ) from None
