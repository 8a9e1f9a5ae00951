"""rtnetlink on a plain socket."""

import errno
import threading

import pytest

from pycni.kernel.link.link_state import LinkState, all_states, get_request
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.testing import Host


def test_batch_returns_an_outcome_for_each_message(host: Host) -> None:
    found, missing, up = host.netns.netlink.outcomes(
        get_request("lo"), get_request("nowhere0"), link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", "lo")])
    )
    assert [LinkState.parse(answer).name for answer in found] == ["lo"]  # type: ignore[union-attr]
    assert isinstance(missing, NetlinkError)
    assert missing.errno == errno.ENODEV
    assert up == []


def test_error_contains_the_message_of_the_kernel(host: Host) -> None:
    creation = link_message(
        rtnetlink.NEWLINK,
        [("IFLA_IFNAME", "x0"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "no-such-kind")]})],
        how=rtnetlink.ACK | rtnetlink.CREATE,
    )
    with pytest.raises(NetlinkError, match=r"operation not supported \(Unknown device type\)"):
        host.netns.netlink.request(creation)


def test_dump_is_complete_while_links_change(host: Host) -> None:
    """The kernel marks a dump that was interrupted by a change. It is repeated."""
    stop = threading.Event()

    def churn() -> None:
        host.netns.enter_permanently()
        while not stop.is_set():
            host.run("ip link add churn0 type veth peer name churn1 && ip link del churn0")

    for number in range(40):
        host.run(f"ip link add link{number} type veth peer name peer{number}")
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(50):
            names = {state.name for state in all_states(host.netns)}
            assert {f"link{number}" for number in range(40)} <= names
    finally:
        stop.set()
        thread.join()
