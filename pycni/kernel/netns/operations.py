"""Base class of what a namespace offers as attributes, such as `links` and `routes`."""

from pycni.kernel.netns.handle import NetnsHandle


class NetnsOperations:
    """Operations on one kind of object in a network namespace."""

    __slots__ = ("_netns",)

    def __init__(self, netns: NetnsHandle) -> None:
        self._netns = netns
