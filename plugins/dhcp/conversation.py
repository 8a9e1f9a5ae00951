"""What plugin and keeper say to each other over the keeper's socket: a request, how long it may take, the answer.

Each is a line: a greeting, and JSON behind it. So whoever speaks something else, such as the Go plugin or the Go
daemon, is found out at once.
"""

import json
import socket
from typing import Any

from pycni.sdk import CniError, Code

_GREETING = b"pycni-dhcp/1 "
LONGEST = 16 << 20  # bytes
PATIENCE, _GRACE = 10.0, 10.0  # seconds: for the first word, and beyond what the keeper has promised

Document = dict[str, Any]


class NoKeeperError(CniError):
    """Nobody keeps DHCP leases at the socket."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"error dialing DHCP daemon: dial unix {path}: {cause}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="DHCP leases need somebody to renew them: run `pycni serve`, or else `pycni dhcp-daemon`",
        )


def ask(path: str, request: Document) -> Document:
    """What the keeper at the socket answers. Raises NoKeeperError if there is none, CniError as the keeper says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(PATIENCE)
        try:
            channel.connect(path)
        except OSError as error:
            raise NoKeeperError(path, (error.strerror or str(error)).lower()) from None
        try:
            channel.sendall(line(request))
            with channel.makefile("rb") as lines:
                promise = parse(lines.readline(LONGEST))
                channel.settimeout(float(promise["within"]) + _GRACE)
                answer = parse(lines.readline(LONGEST))
        except TimeoutError:
            raise CniError(
                f"the DHCP keeper at {path} does not answer",
                code=Code.TRY_AGAIN_LATER,
                details="start it anew: leases survive that",
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CniError(
                f"whoever listens at {path} is no DHCP keeper of pycni, or has ended: {error}",
                code=Code.TRY_AGAIN_LATER,
                details="stop a Go `dhcp daemon` that runs there, and start `pycni serve` or `pycni dhcp-daemon`",
            ) from None
    if "error" in answer:
        failure = CniError.from_json(answer["error"])
        raise CniError(failure.msg, code=failure.code, details=failure.details)
    return answer


def is_served(path: str) -> bool:
    """Whether anybody listens at the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(PATIENCE)
        try:
            channel.connect(path)
        except OSError:
            return False
        return True


def line(document: Document) -> bytes:
    """A document as it travels."""
    return _GREETING + json.dumps(document).encode() + b"\n"


def parse(text: bytes) -> Document:
    """The document in a line. Raises ValueError."""
    if not text:
        raise ValueError("it has hung up")
    if not text.startswith(_GREETING):
        raise ValueError(f"it says {text[:40]!r}")
    document = json.loads(text[len(_GREETING) :])
    if not isinstance(document, dict):
        raise ValueError(f"it says {text[:40]!r}")
    return document
