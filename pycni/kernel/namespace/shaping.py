"""How fast packets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycni.kernel.link import links, qdiscs
from pycni.kernel.link.links import UP, Link, explained
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import link_message

if TYPE_CHECKING:
    from pycni.kernel.link.rate_limit import RateLimit


from pycni.kernel.namespace.links import LinkVerbs


class ShapingVerbs(LinkVerbs):
    """The verbs of traffic control."""

    def create_ifb(self, name: str, *, mtu: int, alias: str = "", also_called: str = "") -> Link:
        """A link that gives back what is redirected to it, up; `also_called` is a second name, if it is free."""
        flags = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]})
        creation = link_message(
            rtnetlink.NEWLINK,
            [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_TXQLEN", 0), kind],
            how=flags,
        )
        naming = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)], flags=UP, change=UP)
        second = ("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", also_called)]})
        properties = link_message(rtnetlink.NEWLINKPROP, [("IFLA_IFNAME", name), second], how=flags)

        def do() -> Link:
            links.delete(self, name)  # left by an ADD of the same attachment that was killed half-way
            with explained(f"cannot create ifb {name}"):
                (state,) = self.netlink.request(creation, naming, links.question(name))
            if also_called:
                self.netlink.outcomes(properties)
            return Link(self, links.LinkState.of(state))

        return self.journal.change(f"create ifb {name}", do, lambda: links.delete(self, name))

    def expect_unshaped(self, link: Link) -> None:
        """Raise CniError if the link is limited or redirected already."""
        qdiscs.refuse_taken(link)

    def create_limit(self, link: Link, limit: RateLimit) -> None:
        """Let the link send no faster than the limit."""
        qdiscs.create_limit(link, limit)

    def expect_limit(self, link: Link, limit: RateLimit) -> None:
        """Raise CniError unless the link is limited so, in rate, burst and latency."""
        qdiscs.expect_limit(link, limit)

    def create_redirect(self, link: Link, to: Link) -> None:
        """Let everything that the link receives pass through `to` first."""
        qdiscs.create_redirect(link, to)

    def expect_redirect(self, link: Link, to: Link) -> None:
        """Raise CniError unless what the link receives passes through `to`."""
        qdiscs.expect_redirect(link, to)

    def delete_shaping(self, link: Link) -> None:
        """Limit and redirect the link no more."""
        self.journal.attempt(f"shape the traffic of {link} no more", lambda: qdiscs.delete(link))

    def redirect_targets(self) -> set[int]:
        """The indexes of the links through which passes what other links receive."""
        return qdiscs.targets_of(self.links())

    def expect_traffic_control(self) -> None:
        """Raise CniError, code 50, unless traffic can be limited."""
        qdiscs.probe(self.link("lo"))
