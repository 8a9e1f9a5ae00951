"""The chain of a container's host ports, and the lines for iptables-restore that create, change and remove it.

-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT                        shared; OUTPUT has it too
-A CNI-HOSTPORT-DNAT -p tcp … -m multiport --dports 8080,8081 -j CNI-DN-d97612…        one per 15 ports of a protocol
-A CNI-DN-d97612… -s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK    hairpin; and -s 127.0.0.1
-A CNI-DN-d97612… -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80

Chains, rules and comments are those of the Go plugin.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface

from pycni.kernel.firewall.families import HOST_LENGTHS
from pycni.kernel.firewall.iptables import translations
from pycni.kernel.firewall.iptables.listing import Listing, option, quoted, words
from pycni.kernel.firewall.iptables.translations import Translation
from pycni.kernel.firewall.nftables import address_owners
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, port_in_use
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale, belongs_to_container
from pycni.protocol.address import Address, Cidr
from pycni.protocol.errors import CniError

DNAT = "CNI-HOSTPORT-DNAT"
_SET_MARK, _MASQUERADE = "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
_CHAIN_NAME = re.compile(r"CNI-[DS]N-[0-9a-f]{21}")
_HOLDER = re.compile(r'dnat name: "(?P<network>.*)" id: "(?P<id>[^"]*)')
_UNQUOTED = re.compile(r"[\w!./:,@%+=-]+")
_COMMENT_MAX = 255
_PORTS_MAX = 15  # of one multiport match


def chain_name(owner: Owner) -> str:
    """Return the name of the chain of the owner's container on its network."""
    return owner.container_name("CNI-DN-", 28)


@dataclass(frozen=True)
class DnatChain:
    """The chain of a container on a network, for one IP version, as the ports of one interface need it."""

    netns: NetnsHandle
    owner: Owner
    comment: str
    ports: HostPorts
    target: Cidr

    @classmethod
    def all_of(cls, netns: NetnsHandle, ports: HostPorts, owner: Owner) -> "Iterator[DnatChain]":
        """Yield the chain for each IP version that has mappings."""
        comment = f'dnat name: "{owner.network}" id: "{owner.container_id}"'
        if len(comment) > _COMMENT_MAX:
            comment = f"{comment[: _COMMENT_MAX - 2]}..."[:_COMMENT_MAX]
        for target, _ in ports.by_family():
            yield cls(netns, owner, f"-m comment --comment {quoted(comment)}", ports, target)

    @property
    def name(self) -> str:
        return chain_name(self.owner)

    @property
    def version(self) -> int:
        return self.target.version

    @property
    def mappings(self) -> list[PortMapping]:
        return self.ports.of(self.version)

    def shared(self) -> dict[str, list[str]]:
        """Return the shared chains that it needs, each with its rules and the jumps to it."""
        local = f"-m addrtype --dst-type LOCAL -j {DNAT}"
        chains = {DNAT: [f"-A PREROUTING {local}", f"-A OUTPUT {local}"]}
        if self.ports.snat and not self.ports.set_mark_chain:
            mark = f"{1 << self.ports.mark_bit:#x}"
            about, needs = quoted("CNI portfwd masquerade mark"), quoted("CNI portfwd requiring masquerade")
            set_mark = f"-m comment --comment {about} -j MARK --set-xmark {mark}/{mark}"
            chains[_SET_MARK] = [f"-A {_SET_MARK} {set_mark}"]
            chains[_MASQUERADE] = [
                f"-A {_MASQUERADE} -m mark --mark {mark}/{mark} -j MASQUERADE",
                f"-A POSTROUTING -m comment --comment {needs} -j {_MASQUERADE}",
            ]
        return chains

    def jumps(self) -> list[str]:
        """Return the rules that jump to it: for each protocol all host ports, of either IP version."""
        conditions = "".join(f"{_quote_if_needed(word)} " for word in self.ports.conditions.get(self.version, ()))
        lines = []
        for protocol in sorted({mapping.protocol for mapping in self.ports.mappings}):
            numbers = [str(m.host_port) for m in self.ports.mappings if m.protocol == protocol]
            for start in range(0, len(numbers), _PORTS_MAX):
                match = f"-m multiport --dports {','.join(numbers[start : start + _PORTS_MAX])}"
                lines.append(f"-A {DNAT} -p {protocol} {self.comment} {match} {conditions}-j {self.name}")
        return lines

    def rules(self) -> list[str]:
        """Return its rules."""
        return [rule for mapping in self.mappings for rule in self._rules_of(mapping)]

    def _rules_of(self, mapping: PortMapping) -> Iterator[str]:
        address = "" if mapping.one_address is None else f"-d {mapping.one_address}/{HOST_LENGTHS[self.version]} "
        port = f"{address}-p {mapping.protocol} -m {mapping.protocol} --dport {mapping.host_port}"
        if self.ports.snat:
            for source in self._masqueraded_sources():
                yield f"-A {self.name} {source}{port} -j {self.ports.set_mark_chain or _SET_MARK}"
        ip = f"[{self.target.ip}]" if self.version == 6 else self.target.ip
        yield f"-A {self.name} {port} -j DNAT --to-destination {ip}:{mapping.container_port}"

    def _masqueraded_sources(self) -> list[str]:
        if self.ports.masq_all:
            return [""]
        return [f"-s {self.target.network} ", *(["-s 127.0.0.1/32 "] if self.version == 4 else [])]

    def addition(self, before: Listing) -> list[str]:
        """Return the lines that add its rules. Raises CniError, code 11, if a port is mapped to another container."""
        chain = self.ports.set_mark_chain
        if self.ports.snat and chain and chain not in before:
            family = "iptables" if self.version == 4 else "ip6tables"
            raise CniError(
                f'externalSetMarkChain "{chain}" does not exist in table nat of {family}',
                details="the program that marks packets for masquerading, such as kube-proxy, must create it first",
            )
        lines = self.stale_removal(before)
        for name, rules in self.shared().items():
            lines += [] if name in before else [f"-N {name}"]
            lines += [line for rule in rules for line in before.once(rule, at_head="POSTROUTING" in rule)]
        keep = partial(self.belongs_to_other, if_unrecorded=False)
        return [*lines, *translations.addition(self.name, self.rules(), self.jumps(), before, keep)]

    def stale_removal(self, before: Listing) -> list[str]:
        """Return the lines that remove stale chains. Raises CniError, code 11, if another container has a port.

        A chain is stale if it maps one of the ports to our address: IPAM has assigned the address to us since.
        """
        return [line for name in self._stale_chains(before) for line in translations.removal(name, before)]

    def _stale_chains(self, before: Listing) -> set[str]:
        stale = set()
        for jump in before.chains.get(DNAT, ()):
            name = option(jump, "-j")
            if name == self.name or self.comment.partition("id: ")[2] in jump or self._is_conditional(jump):
                continue
            for rule in before.chains.get(name, ()):
                if mapping := self._conflicting_mapping(rule):
                    if _dnat_address(rule) == str(self.target.ip):
                        stale.add(name)
                    else:
                        raise _in_use(mapping, jump)
        return stale

    def _is_conditional(self, jump: str) -> bool:
        """Return whether our ports or the jump have conditions: then both may have the port."""
        unconditional = len(words(jump)) == len(words(f"-A x -p x {self.comment} -m x --dports x -j x"))
        return bool(self.ports.conditions.get(self.version)) or not unconditional

    def _conflicting_mapping(self, rule: str) -> PortMapping | None:
        """Return the mapping whose host port the rule translates, or None."""
        if option(rule, "-j") != "DNAT":
            return None
        address = option(rule, "-d")
        for mapping in self.mappings:
            if (option(rule, "-p"), option(rule, "--dport")) == (mapping.protocol, str(mapping.host_port)):
                one = mapping.one_address
                if not address or one is None or ip_interface(address).ip == one:
                    return mapping
        return None

    def belongs_to_other(self, translation: Translation, *, if_unrecorded: bool = True) -> bool:
        """Return whether a translation in the chain belongs to another interface of the container.

        It does if it maps to another address that is not recorded to be our own; see `belongs_to_other_interface`.
        """
        is_other_address = translation.target != self.target.ip
        return is_other_address and belongs_to_other_interface(
            self.netns, self.owner, translation, if_unrecorded=if_unrecorded
        )

    def removal(self, before: Listing) -> list[str]:
        """Return the lines that remove its rules."""
        return translations.removal(self.name, before, self.belongs_to_other)


def belongs_to_other_interface(
    netns: NetnsHandle, owner: Owner, translation: Translation, *, if_unrecorded: bool = False
) -> bool:
    """Return whether the address of a translation is recorded for another interface of the owner's container.

    if_unrecorded: what to return if no owner is recorded for the address.
    """
    if translation.target is None:
        return False
    for _, label in address_owners.find(netns, address_owners.HOST_PORT, [translation.target]):
        return belongs_to_container(label, owner.container_id) and not owner.owns(label)
    return if_unrecorded


def removal_of_stale(stale: Stale, addresses: Collection[Address], before: Listing) -> list[str]:
    """Return the lines that remove the network's chains of containers that are no longer valid.

    In the chains of valid containers, they remove the translations to `addresses`.
    """
    valid = {chain_name(owner) for owner in stale.valid}
    lines = []
    for name in filter(_CHAIN_NAME.fullmatch, before.chains):
        holders = [_HOLDER.search(option(jump, "--comment")) for jump in before.rules_to(name)]
        if not any(found and found["network"] == stale.network for found in holders):
            continue
        if name in valid:
            lines += translations.removal(name, before, lambda each: each.target not in addresses)
        else:
            lines += translations.removal(name, before)
    return lines


def _quote_if_needed(word: str) -> str:
    return word if _UNQUOTED.fullmatch(word) else quoted(word)


def _dnat_address(rule: str) -> str:
    return option(rule, "--to-destination").rpartition(":")[0].strip("[]")


def _in_use(mapping: PortMapping, jump: str) -> CniError:
    found = _HOLDER.search(option(jump, "--comment"))
    holder = f'container {found["id"]} (network "{found["network"]}")' if found else f'"{jump}"'
    return port_in_use(str(mapping), holder)
