"""Deletion of links."""

from contextlib import closing, suppress

from pycni.kernel.link.link_state import NO_SUCH_LINK, find_state, find_state_at
from pycni.kernel.netlink import rtnetlink
from pycni.kernel.netlink.rtnetlink import NetlinkError, link_message
from pycni.kernel.netns.handle import NetnsHandle, new_route_socket
from pycni.kernel.scheduling import BackgroundRunner, background_runner, yield_turn
from pycni.protocol.errors import CniError

_FIRST_WAIT = 0.0002  # seconds until the first look whether the link is gone


def delete(netns: NetnsHandle, name: str) -> bool:
    """Delete the link called `name`, and with a veth its peer. Return whether there was such a link.

    Raises CniError.
    """
    run_in_background = background_runner()
    try:
        with yield_turn(briefly=True):
            if run_in_background is not None:
                return _delete_in_background(netns, name, run_in_background)
            netns.netlink.request(link_message(rtnetlink.DELLINK, [("IFLA_IFNAME", name)]))
    except NetlinkError as error:
        if error.errno in NO_SUCH_LINK:
            return False
        raise CniError(f'cannot delete link "{name}": {error}') from None
    return True


def _delete_in_background(netns: NetnsHandle, name: str, run: BackgroundRunner) -> bool:
    """Start the deletion in another thread and wait only until the link is no longer visible in any namespace.

    The name is free then. The kernel blocks the deleting thread for some 20 ms more, until the last reference to the
    link is gone (netdev_run_todo).
    """
    state = find_state(netns, name)
    if state is None:
        return False
    deletion, own_socket = link_message(rtnetlink.DELLINK, [], index=state.index), new_route_socket(netns)

    def send() -> None:
        with closing(own_socket):  # the handle of the namespace may be closed earlier
            own_socket.request(deletion)

    running, pause = run(send), _FIRST_WAIT
    while True:
        with suppress(TimeoutError):
            running.result(pause)
            return True
        # The kernel holds a lock while it changes links, so its answer never describes a half-done deletion.
        if find_state_at(netns, state.index) is None:
            return True
        pause *= 2
