"""Validate container ids, network names and interface names.

SPEC section 2, Parameters; docs/reference/protocol.md#name-validation.
"""

import os
import re

from pycni.protocol.errors import CniError, Code

_IDENTIFIER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_IFNAMSIZ = 16
# Unicode white space. str.isspace() also accepts U+001C to U+001F, which the kernel and Go allow in interface names.
_WHITESPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | set(
    map(chr, range(0x2000, 0x200B))
)


def check_container_id(text: str) -> None:
    """Raise CniError unless `text` is a valid container id: code 3 if it is empty, code 4 otherwise."""
    if not text:
        raise CniError("missing containerID", code=Code.UNKNOWN_CONTAINER)
    if not _IDENTIFIER.fullmatch(text):
        raise CniError("invalid characters in containerID", code=Code.INVALID_ENVIRONMENT, details=text)


def check_network_name(text: str) -> None:
    """Raise CniError, code 7, unless `text` is a valid network name."""
    if not text:
        raise CniError("missing network name", code=Code.INVALID_NETWORK_CONFIG)
    if not _IDENTIFIER.fullmatch(text):
        raise CniError("invalid characters found in network name", code=Code.INVALID_NETWORK_CONFIG, details=text)


def check_ifname(text: str) -> None:
    """Raise CniError, code 4, unless `text` is an interface name of at most 15 bytes that the kernel accepts."""
    msg, details = "", ""
    if not text:
        msg = "interface name is empty"
    elif len(os.fsencode(text)) >= _IFNAMSIZ:
        msg, details = "interface name is too long", "interface name should be less than 16 characters"
    elif text in {".", ".."}:
        msg = "interface name is . or .."
    elif "/" in text or ":" in text or not _WHITESPACE.isdisjoint(text):
        msg = "interface name contains / or : or whitespace characters"
    if msg:
        raise CniError(msg, code=Code.INVALID_ENVIRONMENT, details=details)
