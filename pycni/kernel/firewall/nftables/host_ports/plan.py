"""The elements and rules that represent the host ports of one attachment."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pycni.kernel.firewall.families import FAMILY_NAMES, UNSPECIFIED
from pycni.kernel.firewall.nftables.elements import TABLE, Element
from pycni.kernel.firewall.nftables.host_ports import route_localnet
from pycni.kernel.firewall.nftables.host_ports.table import SECONDARY, SET_MARK
from pycni.kernel.firewall.nftables.transaction import Change, CounterChange, ElementChange
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, UdpPort
from pycni.kernel.link import routes
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner
from pycni.protocol.address import Cidr, parse_ip


@dataclass(frozen=True)
class Plan:
    """The elements and rules to create for an attachment.

    rules: the rules of mappings with conditions.
    localnet: the interface by which the container is reached from 127.0.0.1, or an empty string.
    """

    elements: Sequence[Element]
    rules: Sequence[str]
    localnet: str = ""

    @classmethod
    def of(cls, netns: NetnsHandle, ports: HostPorts, owner: Owner) -> "Plan":
        """Return the plan. The routing table tells the interfaces by which the host reaches the container."""
        elements: list[Element] = []
        rules: list[str] = []
        localnet = ""
        for target, mappings in ports.by_family():
            link = (ports.snat and routes.interface_to(netns, target.ip)) or ""
            masq_all = ports.snat and ports.masq_all
            for mapping in mappings:
                if conditions := ports.conditions.get(target.version):
                    rules += _rules(mapping, target, link, conditions, masq_all=masq_all)
                else:
                    elements += mapping_elements(mapping, target, link, masq_all=masq_all)
            localnet = link if target.version == 4 else localnet
        if localnet:
            elements.append(Element("localnets", f'"{owner.host_ifname}"', f'"{route_localnet.counter(localnet)}"'))
        return cls(elements, rules, localnet)

    def additions(self, owner: Owner, localnet_before: str) -> Iterator[Change | str]:
        """Yield the changes that create it. `localnet_before` is the present value of route_localnet."""
        if self.localnet:
            yield CounterChange("add", TABLE, route_localnet.counter(self.localnet))
            note = f"route_localnet was {localnet_before}"
            yield ElementChange("add", TABLE, "guarded", f'"{self.localnet}"', comment=note)
        for e in self.elements:
            yield ElementChange("create", TABLE, e.set_name, e.key, comment=owner.label, value=e.value)
        for rule in self.rules:
            yield f'add rule {TABLE} hostport-conditions {rule} comment "{owner.label}"'
        label = owner.label_with_note(f"{len(self.elements)} elements + {len(self.rules)} rules")
        yield ElementChange("create", TABLE, *attachment_key(owner), comment=label)


def attachment_key(owner: Owner) -> tuple[str, str]:
    """Return set and key of the element that stands for the attachment as a whole."""
    return "publishers", f'"{owner.host_ifname}"'


def mapping_elements(mapping: PortMapping, target: Cidr, link: str, *, masq_all: bool) -> Iterator[Element]:
    """Yield the elements of a mapping without conditions.

    link: the interface by which the host reaches the container, for hairpin masquerading; may be empty.
    """
    version, port = target.version, f"{mapping.protocol} . {mapping.host_port}"
    value = f"{target.ip} . {mapping.container_port}"
    if mapping.one_address is None:
        yield Element(f"hostports{version}", port, value)
    else:
        yield Element(f"hostip_hostports{version}", f"{mapping.one_address} . {port}", value)
    destination = f"{mapping.one_address or UNSPECIFIED[version]} . {port}"
    if masq_all:
        yield Element(f"masqueraded{version}", destination)
    elif link:
        yield Element(f"hairpin{version}", f'"{link}" . {destination}')


def _rules(
    mapping: PortMapping, target: Cidr, link: str, conditions: Sequence[str], *, masq_all: bool
) -> Iterator[str]:
    word = FAMILY_NAMES[target.version]
    address = "" if mapping.one_address is None else f"{word} daddr {mapping.one_address} "
    port = f"{address}{mapping.protocol} dport {mapping.host_port}"
    match = f"meta nfproto ipv{target.version} {' '.join(conditions)} {port}"
    if masq_all:
        yield f"{match} {SET_MARK}"
    elif link:
        yield f'{match} iifname "{link}" {SET_MARK}'
    ip = f"[{target.ip}]" if target.version == 6 else target.ip
    yield f"{match} dnat {word} to {ip}:{mapping.container_port}"


def is_any_address(element: Element) -> bool:
    """Return whether the element maps a port on every address of the host."""
    return element.set_name.startswith("hostports")


def is_one_address(element: Element) -> bool:
    """Return whether the element maps a port on one address of the host."""
    return element.set_name.startswith("hostip_")


def any_address_key(element: Element) -> tuple[str, str]:
    """Return, for a port on one address, map and key of the same port on every address."""
    return element.set_name.removeprefix("hostip_"), element.key.split(" . ", 1)[1]


def secondary(set_name: str) -> str:
    """Return the set or map of secondary mappings for one of primary mappings."""
    return f"{SECONDARY}{set_name}"


def related_keys(elements: Iterable[Element]) -> Iterator[tuple[str, str]]:
    """Yield set and key of these elements, and of all that may conflict with them. To be looked up at once."""
    for element in elements:
        yield element.set_name, element.key
        yield secondary(element.set_name), element.key
        if is_one_address(element):
            yield from related_keys([Element(*any_address_key(element))])


def udp_port(element: Element) -> UdpPort | None:
    """Return the UDP port that the element maps, if it maps one."""
    if "hostports" not in element.set_name or "udp . " not in element.key:
        return None
    *address, _, port = element.key.split(" . ")
    return UdpPort(int(element.set_name[-1]), int(port), parse_ip(address[0]) if address else None)
