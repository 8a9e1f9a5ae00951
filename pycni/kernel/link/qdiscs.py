"""Queueing disciplines of a link: how fast it may send, and where what it receives goes."""

import errno
import socket
from collections.abc import Iterator
from typing import Any

from pycni.kernel.link.links import Link, explained
from pycni.kernel.link.rate_limit import U32, Bucket, RateLimit
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.codec import Attributes
from pycni.kernel.netlink.rtnetlink import Message, NetlinkError, link_message
from pycni.protocol.errors import CniError, Code

_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1  # TC_H_ROOT, TC_H_INGRESS
_TBF_HANDLE, _INGRESS_HANDLE, _CLASS = 0x0001_0000, 0xFFFF_0000, 0x0001_0001  # 1:, ffff:, 1:1
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_ANY_PROTOCOL = socket.htons(0x0003)  # ETH_P_ALL
_EVERYTHING = {"keys": ["0x0/0x0+0"]}
_REDIRECT, _STOLEN = 1, 4  # TCA_EGRESS_REDIR, TC_ACT_STOLEN
_MISSING = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})  # what DELQDISC says where there is none


def refuse_taken(link: Link) -> None:
    """Raise CniError if the link is limited or redirected already."""
    for parent in (_ROOT, _INGRESS):
        kind = _kind(_find(link, parent))
        if kind in ("tbf", "ingress"):
            raise CniError(
                f"{link} has a qdisc {kind} already: file exists",
                details="the bandwidth of a container is limited once; it needs a DEL before the next ADD",
            )


def create_limit(link: Link, limit: RateLimit) -> None:
    """Let the link send no faster than the limit."""

    def do() -> None:
        with explained(f"cannot limit {link} to {limit}"):
            link.netns.netlink.request(_limit(link, limit))

    link.netns.journal.change(f"limit {link} to {limit}", do, lambda: _delete(link, _ROOT, "tbf"))


def create_redirect(link: Link, to: Link) -> None:
    """Let everything that the link receives pass through `to` first."""
    qdisc = _message(rtnetlink.NEWQDISC, link, _INGRESS, handle=_INGRESS_HANDLE, attributes=[("TCA_KIND", "ingress")])

    def do() -> None:
        with explained(f"cannot redirect what {link} receives to {to}"):
            link.netns.netlink.request(qdisc, _redirection(link, to))

    what = f"redirect what {link} receives to {to}"
    link.netns.journal.change(what, do, lambda: _delete(link, _INGRESS, "ingress"))


def expect_limit(link: Link, limit: RateLimit) -> None:
    """Raise CniError unless the link is limited so, in rate, burst and latency."""
    found = _find(link, _ROOT)
    if found is None or _kind(found) != "tbf":
        raise CniError(f"{link} is not limited to {limit}: it has no qdisc tbf")
    if difference := limit.difference(_bucket(found)):
        raise CniError(f"{link} is not limited as it should be: {difference}")


def expect_redirect(link: Link, to: Link) -> None:
    """Raise CniError unless what the link receives passes through `to`."""
    if to.index not in targets(link):
        raise CniError(f"what {link} receives is not redirected to {to}")


def delete(link: Link) -> None:
    """Limit and redirect the link no more; what others may have put in these places stays."""
    _delete(link, _ROOT, "tbf")
    _delete(link, _INGRESS, "ingress")


def targets(link: Link) -> set[int]:
    """The indexes of the links to which what the link receives is redirected."""
    if _kind(_find(link, _INGRESS)) != "ingress":
        return set()
    question = Message(rtnetlink.GETTFILTER, 0, {"index": link.index, "parent": _INGRESS_HANDLE}, [])
    return {target for answer in link.netns.netlink.dump(question) for target in _redirections(answer)}


def targets_of(links: list[Link]) -> set[int]:
    """The same for all of these, which are in one namespace."""
    if not links:
        return set()
    question = Message(rtnetlink.GETQDISC, 0, {}, [])
    receivers = {answer["index"] for answer in links[0].netns.netlink.dump(question) if _kind(answer) == "ingress"}
    return {target for link in links if link.index in receivers for target in targets(link)}


def probe(lo: Link) -> None:
    """Raise CniError, code 50, unless the kernel has tbf and ifb, and lets us use them.

    Nothing changes: a tbf without a rate and an ifb with an impossible name are refused (EINVAL), but only after a kind
    that the kernel does not know.
    """
    tbf = _message(rtnetlink.NEWQDISC, lo, _ROOT, handle=_TBF_HANDLE, attributes=[("TCA_KIND", "tbf")])
    kind = ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "ifb")]})
    flags = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
    ifb = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", ".."), kind], how=flags)
    for name, outcome in zip(("tbf", "ifb"), lo.netns.netlink.outcomes(tbf, ifb), strict=True):
        # EEXIST: `lo` has a qdisc of somebody's, who could not have made it without traffic control.
        if isinstance(outcome, NetlinkError) and outcome.errno not in (errno.EINVAL, errno.EEXIST):
            raise CniError(
                f"traffic cannot be limited: {name}: {outcome}",
                code=Code.PLUGIN_NOT_AVAILABLE,
                details="the plugin needs the kernel's sch_tbf, sch_ingress, cls_u32, act_mirred and ifb",
            )


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
        ("TCA_U32_SEL", _EVERYTHING),
        ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", {"attrs": action})]}),
    ]
    attributes = [("TCA_KIND", "u32"), ("TCA_OPTIONS", {"attrs": options})]
    return _message(rtnetlink.NEWTFILTER, link, _INGRESS_HANDLE, info=1 << 16 | _ANY_PROTOCOL, attributes=attributes)


def _message(kind: int, link: Link, parent: int, *, attributes: Attributes, **fields: int) -> Message:
    flags = rtnetlink.ACK | rtnetlink.CREATE | rtnetlink.EXCLUSIVE
    return Message(kind, flags, {"index": link.index, "parent": parent, **fields}, attributes)


def _find(link: Link, parent: int) -> Any | None:
    """What stands at this place of the link; None if nothing does."""
    question = Message(rtnetlink.GETQDISC, rtnetlink.ACK | rtnetlink.ECHO, {"index": link.index, "parent": parent}, [])
    (outcome,) = link.netns.netlink.outcomes(question)
    if isinstance(outcome, NetlinkError):
        if outcome.errno in _MISSING:
            return None
        raise outcome
    return outcome[0] if outcome else None


def _delete(link: Link, parent: int, kind: str) -> None:
    if _kind(_find(link, parent)) != kind:
        return
    message = Message(rtnetlink.DELQDISC, rtnetlink.ACK, {"index": link.index, "parent": parent}, [])
    with explained(f"cannot delete qdisc {kind} of {link}"):
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
    """Where the actions of a filter redirect to."""
    actions = filter_.get_nested("TCA_OPTIONS", "TCA_U32_ACT")
    for _, action in actions["attrs"] if actions else ():
        mirred = action.get_nested("TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS")
        if mirred and mirred["eaction"] == _REDIRECT:
            yield mirred["ifindex"]
