"""The nftables backend of host ports. The package docstring has its invariants."""

import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

from pycni.kernel.firewall.nftables import transaction
from pycni.kernel.firewall.nftables.elements import TABLE, Element
from pycni.kernel.firewall.nftables.host_ports import conflicts, holdings, route_localnet
from pycni.kernel.firewall.nftables.host_ports.holdings import Holdings
from pycni.kernel.firewall.nftables.host_ports.plan import (
    Plan,
    attachment_key,
    mapping_elements,
    related_keys,
    secondary,
    udp_port,
)
from pycni.kernel.firewall.nftables.host_ports.table import CHAIN, HOST_PORTS, STATIC_CHAINS
from pycni.kernel.firewall.nftables.lookup import Lookup, decode_ifname, lookup
from pycni.kernel.firewall.nftables.nft import NftError, opened
from pycni.kernel.firewall.port_mappings import HostPorts, UdpPort
from pycni.kernel.firewall.protocols import HostPortsBackend
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale, belongs_to_container, describe_owner
from pycni.protocol.errors import CniError

T = TypeVar("T")

_ATTEMPTS = 4  # of a transaction that conflicts with those of other processes
_DNAT_RULE = re.compile(r"(\w+) dport (\d+) dnat (?:ip6? )?to (\S+)")


class NftablesHostPorts(HostPortsBackend):
    """Host ports by elements of maps and sets."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, ports: HostPorts, owner: Owner) -> None:
        plan = Plan.of(self._netns, ports, owner)
        names = ", ".join(sorted({str(mapping) for _, mappings in ports.by_family() for mapping in mappings}))
        kernel = lookup(self._netns)
        self._netns.journal.change(
            f"map host ports {names}",
            lambda: _retry_on_conflict(lambda: self._add(kernel, plan, owner)),
            lambda: self.delete(owner),
            atomic=True,
        )
        for element in plan.elements:
            conflicts.expect_no_single_address(kernel, element, owner)
        if plan.localnet:
            route_localnet.ensure(self._netns, plan.localnet)

    def ensure_free(self, ports: HostPorts, owner: Owner) -> None:
        kernel = lookup(self._netns)
        if not kernel.has_chain(*CHAIN):
            return
        for target, mappings in ports.by_family():
            for mapping in mappings if not ports.conditions.get(target.version) else ():
                for element in mapping_elements(mapping, target, "", masq_all=False):
                    conflicts.resolve(kernel, element, owner)
                    conflicts.expect_no_single_address(kernel, element, owner)

    def expect(self, ports: HostPorts, owner: Owner) -> None:
        plan = Plan.of(self._netns, ports, owner)
        kernel = lookup(self._netns)
        kernel.prefetch(TABLE, related_keys(plan.elements))
        for element in plan.elements:
            _expect_element(kernel, element, owner)
        if plan.rules:
            self._expect_rules(plan.rules, owner)
        _expect_static_rules(kernel)
        if plan.localnet:
            route_localnet.expect(self._netns, plan.localnet)

    def has(self, owner: Owner) -> bool:
        return holdings.find_comment(lookup(self._netns), owner) is not None

    def delete(self, owner: Owner | Stale, ports: HostPorts | None = None) -> list[UdpPort]:
        kernel = lookup(self._netns)
        if not kernel.has_chain(*CHAIN):
            return []
        held = _retry_on_conflict(lambda: self._delete(kernel, owner, ports))
        if any(element.set_name == "localnets" for element in held.elements):
            route_localnet.restore_unused(self._netns, lambda: _guarded_links(kernel))
        return [udp for element in held.elements if (udp := udp_port(element)) is not None]

    def _delete(self, kernel: Lookup, owner: Owner | Stale, ports: HostPorts | None) -> Holdings:
        expected = Plan.of(self._netns, ports, owner).elements if ports and isinstance(owner, Owner) else ()
        if isinstance(owner, Owner):
            kernel.prefetch(TABLE, [attachment_key(owner), *related_keys(expected)])
        held = holdings.read(self._netns, kernel, owner, expected)
        if removals := held.removals():
            transaction.apply(self._netns, removals)
        return held

    def _add(self, kernel: Lookup, plan: Plan, owner: Owner) -> None:
        """Replace what the owner has by the plan, in one transaction."""
        script = [] if kernel.has_chain(*CHAIN) else [HOST_PORTS.script]
        kernel.prefetch(TABLE, [attachment_key(owner), *related_keys(plan.elements)])
        removals = holdings.read(self._netns, kernel, owner, plan.elements).removals()
        elements, preceding = [], []
        for element in plan.elements:
            resolved, changes = conflicts.resolve(kernel, element, owner)
            elements += [] if resolved is None else [resolved]
            preceding += changes
        plan = replace(plan, elements=elements)
        with route_localnet.shared(self._netns) if plan.localnet else nullcontext():
            before = route_localnet.read(self._netns, plan.localnet) if plan.localnet else ""
            transaction.apply(self._netns, [*script, *removals, *preceding, *plan.additions(owner, before)])

    def _expect_rules(self, rules: Iterable[str], owner: Owner) -> None:
        """Raise CniError unless the owner has these rules with conditions, by protocol, ports and address."""
        listing = opened(self._netns).run(f"list chain {TABLE} hostport-conditions")
        lines = [line for line in listing.splitlines() if owner.key in line]
        found = {match.groups() for line in lines if (match := _DNAT_RULE.search(line))}
        for rule in rules:
            match = _DNAT_RULE.search(rule)
            if match is not None and match.groups() not in found:
                raise CniError(f"the rule for {match[1]}/{match[2]} to {match[3]} is missing in nftables table {TABLE}")


def _retry_on_conflict(change: Callable[[], T]) -> T:
    """Repeat `change`, which looks up elements and applies a transaction, if another process changed them meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return change()
        except NftError as error:
            if not error.exists and not error.missing:
                raise
    return change()


def _guarded_links(kernel: Lookup) -> list[tuple[str, str]]:
    """Return the guarded interfaces, each with the value that route_localnet had before."""
    return [(decode_ifname(key), guard.comment[-1:]) for key, guard in kernel.elements(TABLE, "guarded")]


def _expect_element(kernel: Lookup, element: Element, owner: Owner) -> None:
    names = (element.set_name, secondary(element.set_name))
    found = [there for name in names if (there := kernel.element(TABLE, name, element.key)) is not None]
    own = next((one for one in found if owner.owns(one.comment)), None)
    if own is None:
        label = found[0].comment if found else ""
        if belongs_to_container(label, owner.container_id):
            return  # two other networks of the container have the primary and the secondary mapping
        reason = f": it belongs to {describe_owner(label)}" if label else ""
        raise CniError(f"{element.key} is missing in nftables table {TABLE}, {element.set_name}{reason}")
    if own.data and own.address_and_port != element.value:
        raise CniError(f"host port {element.key} is mapped to {own.address_and_port}, not to {element.value}")


def _expect_static_rules(kernel: Lookup) -> None:
    """Raise CniError if a chain has fewer rules, or fewer jumps to it, than HOST_PORTS creates."""
    use_counts = kernel.use_counts("inet", "pycni", STATIC_CHAINS)
    for (chain, (wanted, jumps)), uses in zip(STATIC_CHAINS.items(), use_counts, strict=True):
        if uses < wanted + jumps:
            rules = max(uses - jumps, 0)
            raise CniError(f"chain {chain} of nftables table {TABLE} has {rules} of its {wanted} rules")
