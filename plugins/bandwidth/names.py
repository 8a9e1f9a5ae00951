"""The names of the ifb of an attachment: ours, and the one that the Go plugin gives it."""

import re
from hashlib import sha512

from pycni.sdk import Owner

_NAME = re.compile(r"bwp[0-9a-f]{12}")


def ifb_name(owner: Owner) -> str:
    """Ours: each interface of a container has its own (R-43)."""
    return _name(owner.key)


def go_ifb_name(owner: Owner) -> str:
    """The Go plugin's (F-52): all interfaces of a container on one network share it."""
    return _name(owner.network + owner.container_id)


def is_ifb_name(name: str) -> bool:
    """Whether it could be either."""
    return bool(_NAME.fullmatch(name))


def _name(text: str) -> str:
    return f"bwp{sha512(text.encode()).hexdigest()[:12]}"
