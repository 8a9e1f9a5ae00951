"""The attribute `shaping` of a namespace: rate limits (tbf), and redirection of received packets to an ifb."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

from pycni.kernel.link.deletion import delete
from pycni.kernel.link.link import Link, get_link
from pycni.kernel.link.link_state import UP, LinkState, all_states, get_request
from pycni.kernel.link.rate_limit import U32, Bucket, RateLimit
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, explain_errors, link_message
from pycni.kernel.netns.operations import NetnsOperations
from pycni.protocol.errors import CniError, Code

_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1  # TC_H_ROOT, TC_H_INGRESS
_TBF_HANDLE, _INGRESS_HANDLE, _CLASS = 0x0001_0000, 0xFFFF_0000, 0x0001_0001  # 1:, ffff:, 1:1
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_ANY_PROTOCOL = socket.htons(0x0003)  # ETH_P_ALL
_ALL_PACKETS = {"keys": ["0x0/0x0+0"]}
_REDIRECT, _STOLEN = 1, 4  # TCA_EGRESS_REDIR, TC_ACT_STOLEN
_MISSING = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})  # if there is no such qdisc


class Shaping(NetnsOperations):
    """Traffic shaping of the links of a network namespace."""

    __slots__ = ()

    def create_ifb(self, name: str, *, mtu: int, alias: str = "", altname: str = "") -> Link:
        """Create an ifb, up, and return it: it sends the packets that are redirected to it back into the stack.

        `mtu` is in bytes; `altname` is a second name, which is left out if it is in use. Raises CniError.
        """
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]})
        creation = link_message(
            rtnetlink.NEWLINK,
            [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_TXQLEN", 0), kind],
            how=rtnetlink.CREATE_NEW,
        )
        naming = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)], flags=UP, change=UP)
        second = ("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", altname)]})
        properties = link_message(rtnetlink.NEWLINKPROP, [("IFLA_IFNAME", name), second], how=rtnetlink.CREATE_NEW)

        def do() -> Link:
            delete(self._netns, name)  # left behind by an ADD of the same attachment that was killed
            with explain_errors(f"cannot create ifb {name}"):
                (state,) = self._netns.netlink.request(creation, naming, get_request(name))
            if altname:
                self._netns.netlink.outcomes(properties)
            return Link(self._netns, LinkState.parse(state))

        return self._netns.journal.change(f"create ifb {name}", do, lambda: delete(self._netns, name))

    def expect_absent(self, link: Link) -> None:
        """Raise CniError if the link has a tbf or an ingress qdisc."""
        for parent in (_ROOT, _INGRESS):
            kind = _kind(_find(link, parent))
            if kind in ("tbf", "ingress"):
                raise CniError(
                    f"{link} has a qdisc {kind} already: file exists",
                    details="the bandwidth of a container is limited once; it needs a DEL before the next ADD",
                )

    def create_limit(self, link: Link, limit: RateLimit) -> None:
        """Limit the rate at which the link sends. Raises CniError."""

        def do() -> None:
            with explain_errors(f"cannot limit {link} to {limit}"):
                self._netns.netlink.request(_limit(link, limit))

        self._netns.journal.change(f"limit {link} to {limit}", do, lambda: _delete(link, _ROOT, "tbf"), atomic=True)

    def create_redirect(self, link: Link, to: Link) -> None:
        """Redirect all packets that the link receives to the ifb `to`. Raises CniError."""
        qdisc = _message(
            rtnetlink.NEWQDISC, link, _INGRESS, handle=_INGRESS_HANDLE, attributes=[("TCA_KIND", "ingress")]
        )

        def do() -> None:
            with explain_errors(f"cannot {what}", rolled_back=True):
                self._netns.netlink.request(qdisc)
            with explain_errors(f"cannot {what}"):
                self._netns.netlink.request(_redirection(link, to))

        what = f"redirect what {link} receives to {to}"
        self._netns.journal.change(what, do, lambda: _delete(link, _INGRESS, "ingress"))

    def expect_limit(self, link: Link, limit: RateLimit) -> None:
        """Raise CniError unless the link has this limit: rate, burst and latency."""
        found = _find(link, _ROOT)
        if found is None or _kind(found) != "tbf":
            raise CniError(f"{link} is not limited to {limit}: it has no qdisc tbf")
        if difference := limit.difference(_bucket(found)):
            raise CniError(f"{link} is not limited as it should be: {difference}")

    def expect_redirect(self, link: Link, to: Link) -> None:
        """Raise CniError unless packets that the link receives are redirected to `to`."""
        if to.index not in _targets(link):
            raise CniError(f"what {link} receives is not redirected to {to}")

    def delete(self, link: Link) -> None:
        """Delete the tbf and the ingress qdisc of the link; other qdiscs stay. Go on if this fails."""

        def do() -> None:
            _delete(link, _ROOT, "tbf")
            _delete(link, _INGRESS, "ingress")

        self._netns.journal.attempt(f"delete the traffic shaping of {link}", do)

    def redirect_targets(self) -> set[int]:
        """Return the indexes of all links to which received packets are redirected."""
        request = Message(rtnetlink.GETQDISC, 0, {}, [])
        receivers = {answer["index"] for answer in self._netns.netlink.dump(request) if _kind(answer) == "ingress"}
        states = [state for state in all_states(self._netns) if state.index in receivers] if receivers else []
        return {target for state in states for target in _targets(Link(self._netns, state))}

    def expect_supported(self) -> None:
        """Raise CniError, code 50, unless the kernel supports tbf and ifb, and this process may create them."""
        # Changes nothing: the kernel rejects a tbf without a rate and an ifb with this name (EINVAL), but only after it
        # has found the kind.
        lo = get_link(self._netns, "lo")
        tbf = _message(rtnetlink.NEWQDISC, lo, _ROOT, handle=_TBF_HANDLE, attributes=[("TCA_KIND", "tbf")])
        kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]})
        ifb = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", ".."), kind], how=rtnetlink.CREATE_NEW)
        for name, outcome in zip(("tbf", "ifb"), self._netns.netlink.outcomes(tbf, ifb), strict=True):
            # EEXIST: `lo` has a qdisc, so the kernel supports traffic control.
            if isinstance(outcome, NetlinkError) and outcome.errno not in (errno.EINVAL, errno.EEXIST):
                raise CniError(
                    f"traffic cannot be limited: {name}: {outcome}",
                    code=Code.PLUGIN_NOT_AVAILABLE,
                    details="the plugin needs the kernel's sch_tbf, sch_ingress, cls_u32, act_mirred and ifb",
                )


def _targets(link: Link) -> set[int]:
    """Return the indexes of the links to which packets that this link receives are redirected."""
    if _kind(_find(link, _INGRESS)) != "ingress":
        return set()
    request = Message(rtnetlink.GETTFILTER, 0, {"index": link.index, "parent": _INGRESS_HANDLE}, [])
    return {target for answer in link.netns.netlink.dump(request) for target in _redirections(answer)}


def _limit(link: Link, limit: RateLimit) -> Message:
    parms = {"linklayer": _ETHERNET, "rate": min(limit.rate, U32), "limit": limit.limit, "buffer": limit.ticks or 0}
    options: list[tuple[str, Any]] = [("TCA_TBF_PARMS", parms)]
    if limit.ticks is None:
        options.append(("TCA_TBF_BURST", limit.burst))  # in bytes
    if limit.rate > U32:
        options.append(("TCA_TBF_RATE64", limit.rate))
    attributes = [("TCA_KIND", "tbf"), ("TCA_OPTIONS", {"attrs": options})]
    return _message(rtnetlink.NEWQDISC, link, _ROOT, handle=_TBF_HANDLE, attributes=attributes)


def _redirection(link: Link, to: Link) -> Message:
    mirred = {"eaction": _REDIRECT, "action": _STOLEN, "ifindex": to.index}
    action = [("TCA_ACT_KIND", "mirred"), ("TCA_ACT_OPTIONS", {"attrs": [("TCA_MIRRED_PARMS", mirred)]})]
    options = [
        ("TCA_U32_CLASSID", _CLASS),
        ("TCA_U32_SEL", _ALL_PACKETS),
        ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", {"attrs": action})]}),
    ]
    attributes = [("TCA_KIND", "u32"), ("TCA_OPTIONS", {"attrs": options})]
    return _message(rtnetlink.NEWTFILTER, link, _INGRESS_HANDLE, info=1 << 16 | _ANY_PROTOCOL, attributes=attributes)


def _message(kind: int, link: Link, parent: int, *, attributes: Attributes, **fields: int) -> Message:
    return Message(kind, rtnetlink.CREATE_NEW, {"index": link.index, "parent": parent, **fields}, attributes)


def _find(link: Link, parent: int) -> Any | None:
    """Return the qdisc of the link at `parent`, or None if there is none."""
    request = Message(rtnetlink.GETQDISC, rtnetlink.ACK | rtnetlink.ECHO, {"index": link.index, "parent": parent}, [])
    (outcome,) = link.netns.netlink.outcomes(request)
    if isinstance(outcome, NetlinkError):
        if outcome.errno in _MISSING:
            return None
        raise outcome
    return outcome[0] if outcome else None


def _delete(link: Link, parent: int, kind: str) -> None:
    if _kind(_find(link, parent)) != kind:
        return
    message = Message(rtnetlink.DELQDISC, rtnetlink.ACK, {"index": link.index, "parent": parent}, [])
    with explain_errors(f"cannot delete qdisc {kind} of {link}"):
        (outcome,) = link.netns.netlink.outcomes(message)
        if isinstance(outcome, NetlinkError) and outcome.errno not in _MISSING:
            raise outcome


def _kind(qdisc: Any | None) -> str:
    return "" if qdisc is None else str(qdisc.get_attr("TCA_KIND"))


def _bucket(tbf: Any) -> Bucket:
    parms = tbf.get_nested("TCA_OPTIONS", "TCA_TBF_PARMS")
    rate = tbf.get_nested("TCA_OPTIONS", "TCA_TBF_RATE64") or parms["rate"]
    return Bucket(rate, parms["limit"], parms["buffer"])


def _redirections(filter_: Any) -> Iterator[int]:
    """Yield the indexes of the links to which the actions of a filter redirect."""
    actions = filter_.get_nested("TCA_OPTIONS", "TCA_U32_ACT")
    for _, action in actions["attrs"] if actions else ():
        mirred = action.get_nested("TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS")
        if mirred and mirred["eaction"] == _REDIRECT:
            yield mirred["ifindex"]
