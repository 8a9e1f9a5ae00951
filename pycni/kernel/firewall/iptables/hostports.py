"""Host ports by iptables: a chain a container on a network, and jumps to it by port, as the Go plugin makes them.

-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT                        shared; OUTPUT has it too
-A CNI-HOSTPORT-DNAT -p tcp … -m multiport --dports 8080,8081 -j CNI-DN-d97612…        one for 15 ports of a protocol
-A CNI-DN-d97612… -s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK    hairpin; 127.0.0.1 the same
-A CNI-DN-d97612… -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80

Whose 10.1.0.2 is, of several interfaces of the container, is noted in nftables (register.py).
"""

import logging
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface

from pycni.kernel.firewall.iptables import translations
from pycni.kernel.firewall.iptables.listing import Listing, option, quoted, words
from pycni.kernel.firewall.iptables.restore import IptablesError, Table, tables_with
from pycni.kernel.firewall.iptables.translations import Translation
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, UdpPort, taken
from pycni.kernel.link import routes
from pycni.kernel.netns import sysctl
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale, is_of_container
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError

log = logging.getLogger(__name__)

_BACKEND = "hostport"  # in the register
_NAT, _DNAT, _SETMARK, _MASQ = "nat", "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
_CHAIN = re.compile(r"CNI-[DS]N-[0-9a-f]{21}")
_HOLDER = re.compile(r'dnat name: "(?P<network>.*)" id: "(?P<id>[^"]*)')
_COMMENT_MAX = 255
_PORTS_MAX = 15  # of one multiport match
_LENGTH = {4: 32, 6: 128}
_GUARD = f"-m comment --comment {quoted('CNI portfwd: 127.0.0.0/8 is not of this link')} -j DROP"


@dataclass(frozen=True)
class _Chain:
    """The chain of a container on a network in one family, and the lines that make and remove it."""

    netns: NetnsHandle
    owner: Owner
    comment: str
    ports: HostPorts
    target: Cidr

    @classmethod
    def all_of(cls, netns: NetnsHandle, ports: HostPorts, owner: Owner) -> "Iterator[_Chain]":
        """The chain in each family that has mappings."""
        comment = f'dnat name: "{owner.network}" id: "{owner.container_id}"'
        if len(comment) > _COMMENT_MAX:
            comment = f"{comment[: _COMMENT_MAX - 2]}..."[:_COMMENT_MAX]
        for target, _ in ports.by_family():
            yield cls(netns, owner, f"-m comment --comment {quoted(comment)}", ports, target)

    @property
    def name(self) -> str:
        return _name(self.owner)

    @property
    def version(self) -> int:
        return self.target.version

    @property
    def mappings(self) -> list[PortMapping]:
        return self.ports.of(self.version)

    def shared(self) -> dict[str, list[str]]:
        """The shared chains, each with the rules that it needs: its own and the jumps to it."""
        local = f"-m addrtype --dst-type LOCAL -j {_DNAT}"
        chains = {_DNAT: [f"-A PREROUTING {local}", f"-A OUTPUT {local}"]}
        if self.ports.snat and not self.ports.set_mark_chain:
            mark = f"{1 << self.ports.mark_bit:#x}"
            about, needs = quoted("CNI portfwd masquerade mark"), quoted("CNI portfwd requiring masquerade")
            set_mark = f"-m comment --comment {about} -j MARK --set-xmark {mark}/{mark}"
            chains[_SETMARK] = [f"-A {_SETMARK} {set_mark}"]
            chains[_MASQ] = [
                f"-A {_MASQ} -m mark --mark {mark}/{mark} -j MASQUERADE",
                f"-A POSTROUTING -m comment --comment {needs} -j {_MASQ}",
            ]
        return chains

    def jumps(self) -> list[str]:
        """The rules that lead to it: of each protocol all ports that were asked for, in whatever family."""
        conditions = "".join(f"{_word(word)} " for word in self.ports.conditions.get(self.version, ()))
        lines = []
        for protocol in sorted({mapping.protocol for mapping in self.ports.mappings}):
            numbers = [str(m.host_port) for m in self.ports.mappings if m.protocol == protocol]
            for start in range(0, len(numbers), _PORTS_MAX):
                match = f"-m multiport --dports {','.join(numbers[start : start + _PORTS_MAX])}"
                lines.append(f"-A {_DNAT} -p {protocol} {self.comment} {match} {conditions}-j {self.name}")
        return lines

    def rules(self) -> list[str]:
        """Its rules."""
        return [rule for mapping in self.mappings for rule in self._rules_of(mapping)]

    def _rules_of(self, mapping: PortMapping) -> Iterator[str]:
        here = "" if mapping.one_address is None else f"-d {mapping.one_address}/{_LENGTH[self.version]} "
        port = f"{here}-p {mapping.protocol} -m {mapping.protocol} --dport {mapping.host_port}"
        if self.ports.snat:
            for source in self._masqueraded():
                yield f"-A {self.name} {source}{port} -j {self.ports.set_mark_chain or _SETMARK}"
        ip = f"[{self.target.ip}]" if self.version == 6 else self.target.ip
        yield f"-A {self.name} {port} -j DNAT --to-destination {ip}:{mapping.container_port}"

    def _masqueraded(self) -> list[str]:
        if self.ports.masq_all:
            return [""]
        return [f"-s {self.target.network} ", *(["-s 127.0.0.1/32 "] if self.version == 4 else [])]

    def addition(self, before: Listing) -> list[str]:
        """The lines that add it. Raises CniError if a port leads to another container already, code 11."""
        chain = self.ports.set_mark_chain
        if self.ports.snat and chain and chain not in before:
            family = "iptables" if self.version == 4 else "ip6tables"
            raise CniError(
                f'externalSetMarkChain "{chain}" does not exist in table nat of {family}',
                details="whoever else marks packets to be masqueraded, such as kube-proxy, has to make it first",
            )
        lines = self.room(before)
        for name, rules in self.shared().items():
            lines += [] if name in before else [f"-N {name}"]
            lines += [line for rule in rules for line in before.once(rule, at_head="POSTROUTING" in rule)]
        stays = partial(self.stays, unless_noted=False)
        return [*lines, *translations.addition(self.name, self.rules(), self.jumps(), before, stays)]

    def room(self, before: Listing) -> list[str]:
        """The lines that make its ports free. Raises CniError if one leads to another container, code 11."""
        return [line for name in self._leftovers(before) for line in translations.removal(name, before)]

    def _leftovers(self, before: Listing) -> set[str]:
        """Chains in the way that lead to our own address: IPAM has given it to us since."""
        leftovers = set()
        for jump in before.chains.get(_DNAT, ()):
            name = option(jump, "-j")
            if name == self.name or self.comment.partition("id: ")[2] in jump or self._is_conditional(jump):
                continue
            for rule in before.chains.get(name, ()):
                if mapping := self._rival(rule):
                    if _leads_to(rule, self.target):
                        leftovers.add(name)
                    else:
                        raise _taken(mapping, jump)
        return leftovers

    def _is_conditional(self, jump: str) -> bool:
        plain = len(words(jump)) == len(words(f"-A x -p x {self.comment} -m x --dports x -j x"))
        return bool(self.ports.conditions.get(self.version)) or not plain

    def _rival(self, rule: str) -> PortMapping | None:
        """The mapping of ours whose port the rule has sent elsewhere."""
        if option(rule, "-j") != "DNAT":
            return None
        address = option(rule, "-d")
        for mapping in self.mappings:
            if (option(rule, "-p"), option(rule, "--dport")) == (mapping.protocol, str(mapping.host_port)):
                one = mapping.one_address
                if not address or one is None or ip_interface(address).ip == one:
                    return mapping
        return None

    def stays(self, translation: Translation, *, unless_noted: bool = True) -> bool:
        """Whether a part of the chain is another interface's: what leads elsewhere, and is not noted to be our own."""
        elsewhere = translation.target != self.target.ip
        return elsewhere and _is_of_another(self.netns, self.owner, translation, unless_noted=unless_noted)

    def removal(self, before: Listing) -> list[str]:
        """The lines that remove it."""
        return translations.removal(self.name, before, self.stays)


def create(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Let ports of the host lead to the container. Raises CniError, code 11, for one that leads to another."""
    chains = list(_Chain.all_of(netns, ports, owner))
    for chain in chains:
        table = Table(netns, chain.version, _NAT)
        numbers = ", ".join(map(str, chain.mappings))
        netns.journal.change(
            f"publish {numbers} by iptables",
            partial(table.edit, chain.addition),
            partial(table.edit, chain.removal),
        )
        link = routes.interface_to(netns, chain.target.ip) if chain.version == 4 and ports.snat else None
        if link is not None:
            _open_localnet(netns, link)
    if chains:
        address_owners.create(netns, _BACKEND, [chain.target.ip for chain in chains], owner)


def ensure_free(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Raise CniError, code 11, if one of these ports of the host leads to another container.

    No process is started unless the namespace has such rules, or has used the legacy variant, which does not say.
    """
    tables = tables_with(netns, _NAT, _DNAT)
    chains = {chain.version: chain for chain in _Chain.all_of(netns, ports, owner)} if tables else {}
    for table in tables:
        chain = chains.get(table.version)
        if chain is not None and not table.is_empty(_DNAT) and table.find_program("save"):
            try:
                table.edit(chain.room)
            except IptablesError as error:  # somebody's rules that it does not understand
                log.warning("whether iptables has sent these ports elsewhere is not known: %s", error)


def _open_localnet(netns: NetnsHandle, link: str) -> None:
    """Let 127.0.0.1 lead over the link, but nobody there speak as or to 127.0.0.1. It stays, as with the Go plugin."""
    guards = [f"-A PREROUTING -{which} 127.0.0.0/8 -i {link} {_GUARD}" for which in ("s", "d")]
    netns.journal.change(
        f"guard 127.0.0.0/8 on {link}",
        partial(
            Table(netns, 4, "raw").change,
            [f"-C{guard[2:]}" for guard in guards],
            lambda before: [line for guard in guards for line in before.once(guard)],
        ),
    )
    sysctl.ensure(netns, {sysctl.link_setting(4, link, "route_localnet"): "1"})


def expect(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Raise CniError unless these ports of the host lead to the container."""
    for chain in _Chain.all_of(netns, ports, owner):
        shared = [rule for rules in chain.shared().values() for rule in rules]
        tables = [t for t in tables_with(netns, _NAT, chain.name) if t.version == chain.version]
        missing = [table.first_missing([*chain.rules(), *chain.jumps(), *shared]) for table in tables]
        if None not in missing:
            what = f'"{missing[0]}"' if missing else f"chain {chain.name}"
            raise CniError(f"host port {chain.mappings[0]} is missing in iptables: there is no {what}")


def has(netns: NetnsHandle, owner: Owner) -> bool:
    """Whether the container has host ports by iptables on the network."""
    tables = tables_with(netns, _NAT, _name(owner))
    return any(table.variant != "legacy" or _name(owner) in table.listing() for table in tables)


def delete(netns: NetnsHandle, owner: Owner | Stale, ports: HostPorts | None = None) -> list[UdpPort]:
    """Remove all host ports of the owner; `ports` are those it probably has. Returns those that were UDP ports."""
    if isinstance(owner, Stale):
        _delete_stale(netns, owner)
        return []
    old = owner.container_name("CNI-SN-", 28)  # before 2017
    for table in tables_with(netns, _NAT, old):
        table.edit(partial(translations.removal, old))
    tables, gone = tables_with(netns, _NAT, _name(owner)), list[Translation]()
    known = {chain.version: chain for chain in _Chain.all_of(netns, ports, owner)} if ports else {}
    if tables:
        address_owners.delete(netns, _BACKEND, owner, [chain.target.ip for chain in known.values()] or None)
    for table in tables:
        chain = known.get(table.version)
        stays = partial(_is_of_another, netns, owner) if chain is None else chain.stays
        table.edit(partial(_remember_and_remove, _name(owner), stays, gone))
    return [udp for translation in gone if (udp := translation.udp_port) is not None]


def _remember_and_remove(
    name: str, stays: Callable[[Translation], bool], gone: list[Translation], before: Listing
) -> list[str]:
    gone += [translation for translation in translations.of(before.chains.get(name, ())) if not stays(translation)]
    return translations.removal(name, before, stays)


def _is_of_another(netns: NetnsHandle, owner: Owner, translation: Translation, *, unless_noted: bool = False) -> bool:
    """Whether it is noted that the address is of another interface of the container; else `unless_noted`."""
    if translation.target is None:
        return False
    for _, label in address_owners.entries(netns, _BACKEND, [translation.target]):
        return is_of_container(label, owner.container_id) and not owner.owns(label)
    return unless_noted


def _delete_stale(netns: NetnsHandle, stale: Stale) -> None:
    tables = tables_with(netns, _NAT, _DNAT)
    if tables:
        doomed = {ip for ip, label in address_owners.entries(netns, _BACKEND) if stale.owns(label)}
        for table in tables:
            table.edit(partial(_removal_of_stale, stale, doomed))
        address_owners.delete(netns, _BACKEND, stale, list(doomed))


def _removal_of_stale(stale: Stale, doomed: Collection[Address], before: Listing) -> list[str]:
    """The lines that remove every chain of the network that no valid container has, and what else leads nowhere."""
    valid, lines = {_name(owner) for owner in stale.valid}, []
    for name in filter(_CHAIN.fullmatch, before.chains):
        holders = [_HOLDER.search(option(jump, "--comment")) for jump in before.rules_to(name)]
        if not any(found and found["network"] == stale.network for found in holders):
            continue
        if name in valid:
            lines += translations.removal(name, before, lambda each: each.target not in doomed)
        else:
            lines += translations.removal(name, before)
    return lines


def _name(owner: Owner) -> str:
    return owner.container_name("CNI-DN-", 28)


def _word(text: str) -> str:
    return text if re.fullmatch(r"[\w!./:,@%+=-]+", text) else quoted(text)


def _leads_to(rule: str, target: Cidr) -> bool:
    address = option(rule, "--to-destination").rpartition(":")[0].strip("[]")
    return address == str(target.ip)


def _taken(mapping: PortMapping, jump: str) -> CniError:
    found = _HOLDER.search(option(jump, "--comment"))
    who = f'container {found["id"]} (network "{found["network"]}")' if found else f'"{jump}"'
    return taken(str(mapping), who)
