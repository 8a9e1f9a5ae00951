"""host-local: hand out addresses of ranges that this host has to itself, and remember them in a directory.

ADD ── one address of each range set ──► /var/lib/cni/networks/<network>/10.1.0.2   (a file that names the holder)
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext

from pycni.sdk import Address, Attachment, CniError, Code, Dns, IpConfig, Network, Plugin, Result, parse_ip

from . import resolvconf
from .allocator import Choice, Demand, ExhaustedError, allocate, find_free
from .config import HostLocalConfig
from .holder import Holder
from .ranges import RangeSet
from .store import Store, expect_writable

log = logging.getLogger(__name__)


class HostLocal(Plugin[HostLocalConfig]):
    """The plugin; all it changes is the store."""

    config = HostLocalConfig
    cni_args = ("IP",)

    def add(self, cni: Attachment[HostLocalConfig]) -> Result:
        """Reserve one address of every range set."""
        conf = cni.config
        sets, requested = conf.sets, conf.requested(cni.args)
        dns = _resolver(conf.ipam.resolv_conf)
        choices = self._reserve(cni, sets, requested)
        ips = tuple(IpConfig(choice.cidr, choice.gateway) for choice in choices)
        return Result(ips=ips, routes=conf.ipam.routes, dns=dns)

    def _reserve(
        self, cni: Attachment[HostLocalConfig], sets: Sequence[RangeSet], requested: Sequence[Address]
    ) -> Sequence[Choice]:
        holder = Holder(cni.container_id, cni.ifname)
        with (
            Store.ensure(cni.config.data_dir, cni.name) as store,
            store.claim(holder) as claim,
            store.locked() as allocations,
        ):
            held = [parse_ip(address) for address in allocations.held_by(holder)]
            last_reserved = [allocations.last_reserved(i) for i in range(len(sets))]
            demand = Demand(cni.container_id, requested, held)
            try:
                choices = allocate(sets, demand, taken=allocations, last_reserved=last_reserved)
            except ExhaustedError:
                if not allocations.free_torn():
                    raise
                choices = allocate(sets, demand, taken=allocations, last_reserved=last_reserved)
            addresses = [str(choice.address) for choice in choices]
            cni.journal.change(
                f"reserve {', '.join(addresses)}",
                lambda: allocations.reserve(choices, claim),
                lambda: _release(cni, only=addresses),
            )
        return choices

    def check(self, cni: Attachment[HostLocalConfig]) -> None:
        """See that the addresses of the previous result are still reserved for this interface."""
        sets, holder = cni.config.sets, Holder(cni.container_id, cni.ifname)
        store = Store.find(cni.config.data_dir, cni.name)
        if store is None:
            raise _not_found(cni)
        with store, store.locked() as allocations:
            held = allocations.held_by(holder)
            if not held:
                raise _not_found(cni)
            for ip in (ip.address.ip for ip in cni.prev_ips):
                if any(ip in set_ for set_ in sets) and str(ip) not in held:
                    raise CniError(
                        f"{ip} of {cni.ifname} is not reserved for container {cni.container_id}",
                        details=f"{ip} is held by {allocations.holder(str(ip))}"
                        if str(ip) in allocations
                        else f"nobody holds {ip}, it may be given to another container; delete and add this one",
                    )

    def delete(self, cni: Attachment[HostLocalConfig]) -> None:
        """Free the addresses of this interface."""
        cni.journal.attempt(f"free the addresses of {cni.container_id} {cni.ifname}", lambda: _release(cni))

    def status(self, cni: Network[HostLocalConfig]) -> None:
        """Ready if the store can be written and every range set has a free address."""
        if not cni.config.has_ipam:
            return
        sets = cni.config.sets
        expect_writable(cni.config.data_dir, cni.name)
        with Store.find(cni.config.data_dir, cni.name) or nullcontext() as store:
            allocations = store.unlocked() if store else None
            for i, set_ in enumerate(sets):
                if find_free(set_, taken=allocations or ()) is None and not (allocations and allocations.torn()):
                    full = ExhaustedError(set_)
                    raise CniError(
                        f"range set {i} is full: {full.msg}", code=Code.PLUGIN_NOT_AVAILABLE, details=full.details
                    )

    def gc(self, cni: Network[HostLocalConfig]) -> None:
        """Free the addresses that no valid attachment holds, and those that a crash left to nobody."""
        valid = {Holder(owner.container_id, owner.ifname) for owner in cni.stale.valid}
        cni.journal.attempt(f"free the stale addresses of {cni.name}", lambda: _collect(cni, valid))


def _release(cni: Attachment[HostLocalConfig], only: Collection[str] | None = None) -> None:
    """Free what this interface holds, or of that `only` these addresses."""
    if store := Store.find(cni.config.data_dir, cni.name):
        with store, store.locked() as allocations:
            released = allocations.release(Holder(cni.container_id, cni.ifname), only)
        log.debug("freed %s", ", ".join(released) or "nothing")


def _collect(cni: Network[HostLocalConfig], valid: Collection[Holder]) -> None:
    if store := Store.find(cni.config.data_dir, cni.name):
        with store, store.locked() as allocations:
            freed = allocations.collect(valid)
        log.info("GC of %s freed %s", cni.name, ", ".join(freed) or "nothing")


def _not_found(cni: Attachment[HostLocalConfig]) -> CniError:
    return CniError(
        f"host-local: Failed to find address added by container {cni.container_id}",
        details=f"nothing in {cni.config.data_dir}/{cni.name} is held by its interface {cni.ifname}",
    )


def _resolver(path: str) -> Dns:
    """What the file resolvConf says; nothing if it is not configured. Raises CniError."""
    if not path:
        return Dns()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return resolvconf.parse(file.read())
    except OSError as error:
        raise CniError(
            f"open {path}: {(error.strerror or '').lower()}",
            details="resolvConf names a file in the form of resolv.conf",
        ) from None
