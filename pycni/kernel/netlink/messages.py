"""The message classes of pyroute2, which know every attribute. They are used for what the codec does not support."""

from importlib import import_module
from typing import Any

from pycni.kernel.netlink import pyroute2_loading, tc_messages

_NEWNEIGH, _NEWRULE, _NEWQDISC, _GETTFILTER, _NEWLINKPROP = 28, 32, 36, 46, 108


def _class(name: str) -> Any:
    return getattr(import_module(f"{pyroute2_loading.NAME}.netlink.rtnl.{name}"), name)


_CLASSES = {16: _class("ifinfmsg"), 20: _class("ifaddrmsg"), 24: _class("rtmsg"), 56: _class("ifaddrmsg")}
_CLASSES |= {_NEWNEIGH: _class("ndmsg"), _NEWRULE: _class("fibmsg")}


def message_class(kind: int) -> Any:
    """Return the pyroute2 class for messages of this type."""
    if _NEWQDISC <= kind <= _GETTFILTER:
        return tc_messages.TcMessage
    return _CLASSES[16 if kind == _NEWLINKPROP else kind & ~3]
