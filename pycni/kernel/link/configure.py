"""Making an interface usable: its settings, addresses and routes, in one batch."""

from collections.abc import Sequence

from pycni.kernel.link import addresses, links, routes
from pycni.kernel.link.links import UP, Link, explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, link_message
from pycni.kernel.netns import sysctl
from pycni.protocol.address import Cidr
from pycni.protocol.result import Route


def configure(
    link: Link,
    cidrs: Sequence[Cidr],
    routes_: Sequence[Route],
    *,
    dad: bool = False,
    on_link: bool = True,
    on_lan: bool = False,
) -> None:
    """Give the link its addresses, set it up and add the routes.

    With `dad` IPv6 addresses go through duplicate address detection, which takes one to two seconds. Without `on_link`
    the rest of the subnets is not behind the link. With `on_lan` the link is on a network of others, not of the host:
    it heeds their routers, and the kernel announces each address as it appears.
    """
    words = ", ".join(map(str, cidrs)) or "no addresses"

    def do() -> None:
        was_up = (
            on_lan and link.refresh().up
        )  # a DHCP client's link is: the kernel announces no IPv4 address of its own
        with link.netns.entered():  # once, for the settings and for the socket
            sysctl.prefer(link.netns, _settings(link.name, cidrs, dad=dad, on_lan=on_lan))
            _send(link, cidrs, routes_, dad=dad or on_lan, on_link=on_link, announced=bool(cidrs))
        if dad or on_lan:
            addresses.wait_for_detection(link, cidrs)
        if was_up:
            link.netns.netlink.outcomes(announcement(link))  # an ipvlan has no hardware address to be given

    link.netns.journal.change(f"configure {link} with {words}", do)


def prepare(link: Link) -> None:
    """Set the link up, with the settings that it will have, before its addresses are known: a DHCP client needs it up.

    They will be IPv4 addresses.
    """

    def do() -> None:
        if link.state.kind == "veth":  # otherwise it is on a network of others, whose routers it heeds
            sysctl.prefer(link.netns, _without_ipv6(link.name))
        link.ensure(up=True)

    link.netns.journal.change(f"set {link} up to ask for addresses", do)


def announcement(link: Link) -> Message:
    """What lets the kernel tell the neighbours where the link's addresses live (arp_notify, ndisc_notify).

    It does so whenever the link is given a hardware address, even the one that it has. (A packet socket of our own
    would cost 4 to 8 ms to close.)
    """
    return link_message(rtnetlink.NEWLINK, [("IFLA_ADDRESS", link.mac)], index=link.index)


def configure_port(link: Link, cidrs: Sequence[Cidr], routes_: Sequence[Route]) -> None:
    """The same for the host's end of a cable: nothing but the link's own settings is touched."""
    words = ", ".join(map(str, cidrs))

    def do() -> None:
        link.refuse_router_advertisements()
        link.skip_duplicate_address_detection()
        if any(cidr.version == 6 for cidr in cidrs):
            sysctl.prefer(link.netns, {sysctl.link_setting(6, link.name, "disable_ipv6"): "0"})
        _send(link, cidrs, routes_)

    link.netns.journal.change(f"make {link} the container's gateway with {words}", do)


def _settings(name: str, cidrs: Sequence[Cidr], *, dad: bool, on_lan: bool) -> dict[str, str]:
    if not cidrs:
        return {}  # nothing but Ethernet: how the container configures itself is its own business
    # On a LAN, neighbours hear also of the IPv6 addresses that routers give it.
    settings = {sysctl.link_setting(6, name, "ndisc_notify"): "1"} if on_lan else {}
    if any(cidr.version == 6 for cidr in cidrs):
        # lo comes first: where it has no IPv6, no other link of the namespace works with it.
        settings |= {sysctl.link_setting(6, "lo", "disable_ipv6"): "0"}
        wanted = {"disable_ipv6": "0", "keep_addr_on_down": "1", "ndisc_notify": "1"}
        wanted |= {} if on_lan else {"accept_ra": "0"}
        wanted |= {"enhanced_dad": "1", "accept_dad": "1"} if dad else {"accept_dad": "0"}
        settings |= {sysctl.link_setting(6, name, key): value for key, value in wanted.items()}
    elif not dad and not on_lan:
        settings |= _without_ipv6(name)
    return settings


def _without_ipv6(name: str) -> dict[str, str]:
    """How a link behaves that gets no IPv6 address."""
    return {sysctl.link_setting(6, name, key): "0" for key in ("accept_dad", "accept_ra")}


def _send(
    link: Link,
    cidrs: Sequence[Cidr],
    routes_: Sequence[Route],
    *,
    dad: bool = False,
    on_link: bool = True,
    announced: bool = False,
) -> None:
    # Of IPv4 the kernel announces what is there when the link comes up, of IPv6 what appears on a link that is up, once
    # duplicate address detection has ended or is seen to be off.
    early = [cidr for cidr in cidrs if cidr.version == 4 or not dad]
    late = [cidr for cidr in cidrs if cidr not in early]

    def giving(cidrs: Sequence[Cidr]) -> list[tuple[str, Message]]:
        additions = [addresses.addition(link.index, cidr, dad=dad, on_link=on_link) for cidr in cidrs]
        return [(f"cannot give {cidr} to {link}", message) for cidr, message in zip(cidrs, additions, strict=True)]

    up = link_message(rtnetlink.NEWLINK, [], index=link.index, flags=UP, change=UP)
    steps = [*giving(early), (f"cannot set {link} up", up), *giving(late)]
    for route in routes_:
        by = f" via {route.gw}" if route.gw else ""
        steps.append((f"cannot add the route to {route.dst}{by} on {link}", routes.addition(link.index, route)))
    wishes = [_arp_notify(link)] if announced else []  # the kernel may leave them unfulfilled
    messages = *wishes, *[message for _, message in steps], links.question(link.name)
    *outcomes, seen = link.netns.netlink.outcomes(*messages)[len(wishes) :]
    for (failure, _), outcome in zip(steps, outcomes, strict=True):
        if isinstance(outcome, NetlinkError):
            with explained(failure):
                raise outcome
    links.learn_whether_up(link, seen)


def _arp_notify(link: Link) -> Message:
    """Let the kernel announce the link's IPv4 addresses, by the setting of this name: no way through /proc/sys."""
    setting = {"attrs": [("IPV4_DEVCONF_ARP_NOTIFY", 1)]}
    family = {"attrs": [("AF_INET", {"attrs": [("IFLA_INET_CONF", setting)]})]}
    return link_message(rtnetlink.NEWLINK, [("IFLA_AF_SPEC", family)], index=link.index)
