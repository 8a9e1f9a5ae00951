"""Host ports by iptables. `DnatChain` describes the chains and rules, which are those of the Go plugin.

`address_owners` records the owner of each address, since rules do not tell interfaces of one container apart.
"""

import logging
from collections.abc import Callable
from functools import partial

from pycni.kernel.firewall.iptables import dnat_chain, translations
from pycni.kernel.firewall.iptables.dnat_chain import DNAT, DnatChain, chain_name
from pycni.kernel.firewall.iptables.listing import Listing, quoted
from pycni.kernel.firewall.iptables.restore import IptablesError, Table, tables_with
from pycni.kernel.firewall.iptables.translations import Translation
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.firewall.port_mappings import HostPorts, UdpPort
from pycni.kernel.firewall.protocols import HostPortsBackend
from pycni.kernel.link import routes
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)

_NAT = "nat"
_GUARD = f"-m comment --comment {quoted('CNI portfwd: 127.0.0.0/8 is not of this link')} -j DROP"


class IptablesHostPorts(HostPortsBackend):
    """Host ports in chains CNI-DN-…, one per container and network."""

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns

    def create(self, ports: HostPorts, owner: Owner) -> None:
        chains = list(DnatChain.all_of(self._netns, ports, owner))
        for chain in chains:
            table = Table(self._netns, chain.version, _NAT)
            self._netns.journal.change(
                f"map host ports {', '.join(map(str, chain.mappings))} by iptables",
                partial(table.edit, chain.addition),
                partial(table.edit, chain.removal),
                atomic=True,
            )
            link = routes.interface_to(self._netns, chain.target.ip) if chain.version == 4 and ports.snat else None
            if link is not None:
                self._enable_localnet(link)
        if chains:
            address_owners.create(self._netns, address_owners.HOST_PORT, [chain.target.ip for chain in chains], owner)

    def ensure_free(self, ports: HostPorts, owner: Owner) -> None:
        # No process is started unless the chain has rules, or the legacy variant, which cannot be asked, is in use.
        tables = tables_with(self._netns, _NAT, DNAT)
        chains = {chain.version: chain for chain in DnatChain.all_of(self._netns, ports, owner)} if tables else {}
        for table in tables:
            chain = chains.get(table.version)
            if chain is not None and not table.is_empty(DNAT) and table.find_program("save"):
                try:
                    table.edit(chain.stale_removal)
                except IptablesError as error:  # another program has created rules that iptables cannot list
                    log.warning("cannot tell whether iptables maps these host ports already: %s", error)

    def expect(self, ports: HostPorts, owner: Owner) -> None:
        for chain in DnatChain.all_of(self._netns, ports, owner):
            shared = [rule for rules in chain.shared().values() for rule in rules]
            tables = [table for table in tables_with(self._netns, _NAT, chain.name) if table.version == chain.version]
            missing = [table.first_missing([*chain.rules(), *chain.jumps(), *shared]) for table in tables]
            if None not in missing:
                what = f'"{missing[0]}"' if missing else f"chain {chain.name}"
                raise CniError(f"host port {chain.mappings[0]} is missing in iptables: there is no {what}")

    def has(self, owner: Owner) -> bool:
        tables = tables_with(self._netns, _NAT, chain_name(owner))
        return any(table.variant != "legacy" or chain_name(owner) in table.listing() for table in tables)

    def delete(self, owner: Owner | Stale, ports: HostPorts | None = None) -> list[UdpPort]:
        if isinstance(owner, Stale):
            self._delete_stale(owner)
            return []
        old = owner.container_name("CNI-SN-", 28)  # created by Go plugins before 2017
        for table in tables_with(self._netns, _NAT, old):
            table.edit(partial(translations.removal, old))
        tables, removed = tables_with(self._netns, _NAT, chain_name(owner)), list[Translation]()
        known = {chain.version: chain for chain in DnatChain.all_of(self._netns, ports, owner)} if ports else {}
        if tables:
            addresses = [chain.target.ip for chain in known.values()] or None
            address_owners.delete(self._netns, address_owners.HOST_PORT, owner, addresses)
        for table in tables:
            chain = known.get(table.version)
            keep = chain.belongs_to_other if chain else partial(self._belongs_to_other_interface, owner)
            table.edit(partial(_collect_and_remove, chain_name(owner), keep, removed))
        return [udp for translation in removed if (udp := translation.udp_port) is not None]

    def _belongs_to_other_interface(self, owner: Owner, translation: Translation) -> bool:
        return dnat_chain.belongs_to_other_interface(self._netns, owner, translation)

    def _delete_stale(self, stale: Stale) -> None:
        tables = tables_with(self._netns, _NAT, DNAT)
        if tables:
            entries = address_owners.find(self._netns, address_owners.HOST_PORT)
            addresses = {ip for ip, label in entries if stale.owns(label)}
            for table in tables:
                table.edit(partial(dnat_chain.removal_of_stale, stale, addresses))
            address_owners.delete(self._netns, address_owners.HOST_PORT, stale, list(addresses))

    def _enable_localnet(self, link: str) -> None:
        """Turn on route_localnet of the interface, and drop packets from and to 127.0.0.0/8 that arrive by it.

        Both stay after DEL, as with the Go plugin.
        """
        guards = [f"-A PREROUTING -{which} 127.0.0.0/8 -i {link} {_GUARD}" for which in ("s", "d")]
        self._netns.journal.change(
            f"drop packets from and to 127.0.0.0/8 that arrive by {link}",
            partial(
                Table(self._netns, 4, "raw").change,
                [f"-C{guard[2:]}" for guard in guards],
                lambda before: [line for guard in guards for line in before.once(guard)],
            ),
        )
        sysctl.ensure(self._netns, {sysctl.link_setting(4, link, "route_localnet"): "1"})


def _collect_and_remove(
    name: str, keep: Callable[[Translation], bool], removed: list[Translation], before: Listing
) -> list[str]:
    """Append the translations to remove to `removed`, and return the lines that remove them."""
    removed += [translation for translation in translations.parse(before.chains.get(name, ())) if not keep(translation)]
    return translations.removal(name, before, keep)
