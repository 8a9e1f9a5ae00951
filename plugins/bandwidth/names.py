"""Names of the ifb interface of an attachment: pycni's, and the Go plugin's."""

import re
from hashlib import sha512

from pycni.sdk import Owner

_NAME = re.compile(r"bwp[0-9a-f]{12}")


def ifb_name(owner: Owner) -> str:
    """Return pycni's name, which is unique per interface of a container (docs/reference/plugins.md#bandwidth)."""
    return _name(owner.key)


def go_ifb_name(owner: Owner) -> str:
    """Return the Go plugin's name, which all interfaces of a container on one network share."""
    return _name(owner.network + owner.container_id)


def is_ifb_name(name: str) -> bool:
    """Return whether the name has the form of either."""
    return bool(_NAME.fullmatch(name))


def _name(text: str) -> str:
    return f"bwp{sha512(text.encode()).hexdigest()[:12]}"
