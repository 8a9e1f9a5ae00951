"""Host ports by nftables: elements of maps and sets, in the table that hostports_table.py describes."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from pycni.kernel.firewall.nftables import route_localnet, transaction
from pycni.kernel.firewall.nftables.elements import Element
from pycni.kernel.firewall.nftables.hostports_table import ANY, CHAIN, MARK, NAME, PLACES, STATIC, TABLE, WORD
from pycni.kernel.firewall.nftables.lookup import Found, Lookup, interface_in, lookup
from pycni.kernel.firewall.nftables.nft import NftError, opened
from pycni.kernel.firewall.nftables.transaction import Change, CounterChange, ElementChange
from pycni.kernel.firewall.port_mappings import HostPorts, PortMapping, UdpPort, taken
from pycni.kernel.link import routes
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.owner import Owner, Stale, holder, is_of_container
from pycni.protocol.address import Cidr, parse_ip
from pycni.protocol.errors import CniError

T = TypeVar("T")

_ATTEMPTS = 4  # to change what others change at the same time
_COUNT = re.compile(r"(\d+) elements \+ (\d+) rules")
_TO = re.compile(r"(\w+) dport (\d+) dnat (?:ip6? )?to (\S+)")


@dataclass(frozen=True)
class _Plan:
    """What the host ports of an attachment are in nftables."""

    elements: Sequence[Element]
    rules: Sequence[str]  # of those that have conditions
    localnet: str = ""  # the interface by which the container is reached from 127.0.0.1

    @classmethod
    def of(cls, netns: NetnsHandle, ports: HostPorts, owner: Owner) -> "_Plan":
        elements: list[Element] = []
        rules: list[str] = []
        reached_by = ""
        for target, mappings in ports.by_family():
            link = (ports.snat and routes.interface_to(netns, target.ip)) or ""
            for mapping in mappings:
                if conditions := ports.conditions.get(target.version):
                    rules += _rules(mapping, target, link, conditions, masq_all=ports.snat and ports.masq_all)
                else:
                    elements += _elements(mapping, target, link, masq_all=ports.snat and ports.masq_all)
            reached_by = link if target.version == 4 else reached_by
        if reached_by:
            elements.append(Element("localnets", f'"{owner.host_ifname}"', f'"{route_localnet.counter(reached_by)}"'))
        return cls(elements, rules, reached_by)

    def additions(self, owner: Owner, localnet_before: str) -> Iterator[Change | str]:
        """What makes it."""
        if self.localnet:
            guarded, was = f'"{self.localnet}"', f"route_localnet was {localnet_before}"
            yield CounterChange("add", NAME, route_localnet.counter(self.localnet))
            yield ElementChange("add", NAME, "guarded", guarded, comment=was)
        for e in self.elements:
            yield ElementChange("create", NAME, e.place, e.key, comment=owner.label, value=e.value)
        for rule in self.rules:
            yield f'add rule {NAME} hostport-conditions {rule} comment "{owner.label}"'
        note = owner.label_with(f"{len(self.elements)} elements + {len(self.rules)} rules")
        yield ElementChange("create", NAME, *_publisher(owner), comment=note)


@dataclass(frozen=True)
class _Held:
    """What somebody has in the table."""

    elements: Sequence[Element] = ()
    rules: Sequence[int] = ()  # handles


def _elements(mapping: PortMapping, target: Cidr, link: str, *, masq_all: bool) -> Iterator[Element]:
    version, port = target.version, f"{mapping.protocol} . {mapping.host_port}"
    value = f"{target.ip} . {mapping.container_port}"
    if mapping.one_address is None:
        yield Element(f"hostports{version}", port, value)
    else:
        yield Element(f"hostip_hostports{version}", f"{mapping.one_address} . {port}", value)
    place = f"{mapping.one_address or ANY[version]} . {port}"
    if masq_all:
        yield Element(f"masqueraded{version}", place)
    elif link:
        yield Element(f"hairpin{version}", f'"{link}" . {place}')


def _rules(
    mapping: PortMapping, target: Cidr, link: str, conditions: Sequence[str], *, masq_all: bool
) -> Iterator[str]:
    word = WORD[target.version]
    address = "" if mapping.one_address is None else f"{word} daddr {mapping.one_address} "
    port = f"{address}{mapping.protocol} dport {mapping.host_port}"
    match = f"meta nfproto ipv{target.version} {' '.join(conditions)} {port}"
    if masq_all:
        yield f"{match} {MARK}"
    elif link:
        yield f'{match} iifname "{link}" {MARK}'
    ip = f"[{target.ip}]" if target.version == 6 else target.ip
    yield f"{match} dnat {word} to {ip}:{mapping.container_port}"


def create(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Let ports of the host lead to the container. Raises CniError, code 11, for one that leads to another."""
    plan = _Plan.of(netns, ports, owner)
    words = ", ".join(sorted({str(mapping) for _, mappings in ports.by_family() for mapping in mappings}))
    netns.journal.change(f"publish {words}", lambda: _add(netns, plan, owner), lambda: delete(netns, owner))
    if plan.localnet:
        route_localnet.ensure(netns, plan.localnet)


def ensure_free(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Raise CniError, code 11, if one of these ports of the host leads to another container."""
    kernel = lookup(netns)
    if not kernel.has_chain(*CHAIN):
        return
    for target, mappings in ports.by_family():
        for mapping in mappings if not ports.conditions.get(target.version) else ():
            for element in _elements(mapping, target, "", masq_all=False):
                _settle(kernel, element, owner)
                _refuse_if_one_address_is_taken(kernel, element, owner)


def expect(netns: NetnsHandle, ports: HostPorts, owner: Owner) -> None:
    """Raise CniError unless these ports of the host lead to the container."""
    plan = _Plan.of(netns, ports, owner)
    kernel = lookup(netns)
    kernel.look_ahead(NAME, _places(plan.elements))
    for element in plan.elements:
        _expect_element(kernel, element, owner)
    if plan.rules:
        _expect_rules(netns, plan.rules, owner)
    for (chain, (wanted, jumps)), uses in zip(STATIC.items(), kernel.uses("inet", "pycni", STATIC), strict=True):
        if uses < wanted + jumps:
            rules = max(uses - jumps, 0)
            raise CniError(f"chain {chain} of nftables table {NAME} has {rules} of its {wanted} rules")
    if plan.localnet:
        route_localnet.expect(netns, plan.localnet)


def has(netns: NetnsHandle, owner: Owner) -> bool:
    """Whether the attachment has host ports by nftables."""
    return _note(lookup(netns), owner) is not None


def delete(netns: NetnsHandle, owner: Owner | Stale, ports: HostPorts | None = None) -> list[UdpPort]:
    """Remove all host ports of the owner; `ports` are those it probably has. Returns which of them were UDP ports."""
    kernel = lookup(netns)
    if not kernel.has_chain(*CHAIN):
        return []
    held = _until_alone(lambda: _delete_once(netns, kernel, owner, ports))
    if any(element.place == "localnets" for element in held.elements):
        route_localnet.leave_unused(netns, NAME, lambda: _guards(kernel))
    return [udp for element in held.elements if (udp := _udp_port(element)) is not None]


def _places(elements: Iterable[Element]) -> Iterator[tuple[str, str]]:
    """Where these elements may be, or others that are in their way."""
    for element in elements:
        yield element.place, element.key
        yield f"more_{element.place}", element.key
        if element.place.startswith("hostip_"):
            yield from _places([Element(*_of_all(element))])


def _delete_once(netns: NetnsHandle, kernel: Lookup, owner: Owner | Stale, ports: HostPorts | None) -> _Held:
    expected = _Plan.of(netns, ports, owner).elements if ports and isinstance(owner, Owner) else ()
    if isinstance(owner, Owner):
        kernel.look_ahead(NAME, [_publisher(owner), *_places(expected)])
    held = _held(netns, kernel, owner, expected)
    if removals := _removals(held):
        transaction.apply(netns, removals)
    return held


def _add(netns: NetnsHandle, plan: _Plan, owner: Owner) -> None:
    kernel = lookup(netns)
    _until_alone(lambda: _add_once(netns, kernel, plan, owner))
    try:
        for element in plan.elements:
            _refuse_if_one_address_is_taken(kernel, element, owner)
    except CniError:
        delete(netns, owner)
        raise


def _until_alone(change: Callable[[], T]) -> T:
    """Do it again while others change at the same time what it has read."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return change()
        except NftError as error:
            if not error.exists and not error.missing:
                raise
    return change()


def _add_once(netns: NetnsHandle, kernel: Lookup, plan: _Plan, owner: Owner) -> None:
    script = [] if kernel.has_chain(*CHAIN) else [TABLE.script]
    kernel.look_ahead(NAME, [_publisher(owner), *_places(plan.elements)])
    removals = _removals(_held(netns, kernel, owner, plan.elements))
    elements, claims = [], []
    for element in plan.elements:
        settled, room = _settle(kernel, element, owner)
        elements += [] if settled is None else [settled]
        claims += room
    plan = replace(plan, elements=elements)
    with route_localnet.shared(netns) if plan.localnet else nullcontext():
        before = route_localnet.before(netns, plan.localnet) if plan.localnet else ""
        transaction.apply(netns, [*script, *removals, *claims, *plan.additions(owner, before)])


def _settle(kernel: Lookup, element: Element, owner: Owner) -> tuple[Element | None, list[Change]]:
    """The element as it can be among those of others, and what makes room for it. Raises CniError, code 11.

    A container on several networks is given the same ports on each: the first leads to it, the second stands by.
    """
    room = []
    of_all = _of_all(element) if element.place.startswith("hostip_") else None
    for place, key in filter(None, ((element.place, element.key), of_all)):
        taken_in, found = _whoever_has(kernel, place, key)
        if found is None or owner.owns(found.comment):
            room += _claim(place, key) if (place, key) == of_all else []
        elif is_of_container(found.comment, owner.container_id):
            if taken_in == place:
                return _standing_by(kernel, element), []
        elif found.data and found.address_and_port.split()[0] != element.value.split()[0]:
            raise _taken(element, found.comment)
        else:  # a leftover: IPAM has given us the address since; or what went with such a port
            room.append(ElementChange("delete", NAME, taken_in, key))
    return element, room


def _whoever_has(kernel: Lookup, place: str, key: str) -> tuple[str, Found | None]:
    """The element that has the key in the place or, if nobody has, stands by; and where it is."""
    for there in (place, f"more_{place}"):
        found = kernel.element(NAME, there, key)
        if found is not None:
            return there, found
    return place, None


def _claim(place: str, key: str) -> list[Change]:
    """What fails if somebody has the port of all addresses by then."""
    nobody = f"{ANY[int(place[-1])]} . 0"
    return [ElementChange("create", NAME, place, key, value=nobody), ElementChange("delete", NAME, place, key)]


def _standing_by(kernel: Lookup, element: Element) -> Element | None:
    second = replace(element, place=f"more_{element.place}")
    if second.place not in PLACES or kernel.element(NAME, second.place, second.key) is not None:
        return None
    return second


def _of_all(element: Element) -> tuple[str, str]:
    """The map and the key of the port of every address that this port of one address is too."""
    return element.place.removeprefix("hostip_"), element.key.split(" . ", 1)[1]


def _refuse_if_one_address_is_taken(kernel: Lookup, element: Element, owner: Owner) -> None:
    """Raise CniError if the port of all addresses is another container's port of one."""
    if not element.place.startswith("hostports"):
        return
    for other in kernel.elements_ending(NAME, f"hostip_{element.place}", element.key):
        if not is_of_container(other.comment, owner.container_id):
            raise _taken(element, other.comment)


def _taken(element: Element, label: str) -> CniError:
    port = element.key.replace(" . ", "/") if element.place.startswith("hostports") else element.key
    return taken(port, holder(label))


def _publisher(owner: Owner) -> tuple[str, str]:
    """The set in which it is noted that the attachment has host ports, and the key there."""
    return "publishers", f'"{owner.host_ifname}"'


def _note(kernel: Lookup, owner: Owner) -> str | None:
    """What is noted about the attachment's host ports; None if it has none."""
    found = kernel.element(NAME, *_publisher(owner))
    return found.comment if found is not None and owner.owns(found.comment) else None


def _held(netns: NetnsHandle, kernel: Lookup, owner: Owner | Stale, expected: Iterable[Element]) -> _Held:
    """What the owner has; everything is read only if the expected elements are not all."""
    if isinstance(owner, Stale):
        return _Held(*_owned(netns, owner))
    note = _note(kernel, owner)
    if note is None:
        return _Held()
    count = _COUNT.search(note)
    elements = [Element(*_publisher(owner)), *_those_of(kernel, owner, expected)]
    if count is None or int(count[1]) != len(elements) - 1:
        return _Held(*_owned(netns, owner))
    return _Held(elements, _rule_handles(netns, owner) if int(count[2]) else ())


def _those_of(kernel: Lookup, owner: Owner, expected: Iterable[Element]) -> Iterator[Element]:
    for element in expected:
        for place in (element.place, f"more_{element.place}"):
            found = kernel.element(NAME, place, element.key)
            if found is not None and owner.owns(found.comment):
                yield replace(element, place=place)


def _owned(netns: NetnsHandle, owner: Owner | Stale) -> tuple[list[Element], list[int]]:
    elements = [element for element, label in TABLE.held(netns) if owner.owns(label)]
    return elements, _rule_handles(netns, owner)


def _rule_handles(netns: NetnsHandle, owner: Owner | Stale) -> list[int]:
    listing = opened(netns).listing(f"list chain {NAME} hostport-conditions")
    rules = [item["rule"] for item in listing if "rule" in item]
    return [rule["handle"] for rule in rules if owner.owns(rule.get("comment", ""))]


def _guards(kernel: Lookup) -> list[tuple[str, str]]:
    """The links that lead from 127.0.0.1, and what route_localnet was there before."""
    return [(interface_in(key), guard.comment[-1:]) for key, guard in kernel.elements(NAME, "guarded")]


def _removals(held: _Held) -> list[Change | str]:
    return [
        *(ElementChange("delete", NAME, element.place, element.key) for element in held.elements),
        *(f"delete rule {NAME} hostport-conditions handle {handle}" for handle in held.rules),
    ]


def _udp_port(element: Element) -> UdpPort | None:
    """The port that an element of a map of ports is, if it is one of UDP."""
    if "hostports" not in element.place or "udp . " not in element.key:
        return None
    *address, _, port = element.key.split(" . ")
    return UdpPort(int(element.place[-1]), int(port), parse_ip(address[0]) if address else None)


def _expect_element(kernel: Lookup, element: Element, owner: Owner) -> None:
    places = [element.place, f"more_{element.place}"]
    found = [kernel.element(NAME, place, element.key) for place in places]
    own = next((one for one in found if one is not None and owner.owns(one.comment)), None)
    if own is None:
        label = next((one.comment for one in found if one is not None), "")
        if is_of_container(label, owner.container_id):
            return  # by its other network, and it stands by twice
        held = f"it is of {holder(label)}" if label else "nobody has it"
        raise CniError(f"{element.key} is missing in nftables table {NAME}, {element.place}: {held}")
    if own.data and own.address_and_port != element.value:
        raise CniError(f"host port {element.key} leads to {own.address_and_port}, not to {element.value}")


def _expect_rules(netns: NetnsHandle, rules: Iterable[str], owner: Owner) -> None:
    nft = opened(netns)
    listed = [line for line in nft.run(f"list chain {NAME} hostport-conditions").splitlines() if owner.key in line]
    found = {match.groups() for line in listed if (match := _TO.search(line))}
    for rule in rules:
        match = _TO.search(rule)
        if match is not None and match.groups() not in found:
            raise CniError(f"the rule for {match[1]}/{match[2]} to {match[3]} is missing in nftables table {NAME}")
