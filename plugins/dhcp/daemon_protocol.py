"""The protocol between the plugin and the lease daemon: a request, the time that it may take, and an answer.

Each is a line that consists of a prefix and JSON. The prefix shows at once when the peer speaks another protocol, such
as that of the Go plugin or the Go daemon.
"""

import json
import socket
from typing import Any

from pycni.sdk import CniError, Code

from . import options

_PREFIX = b"pycni-dhcp/1 "
MAX_LINE = 16 << 20  # bytes
TIMEOUT, _MARGIN = 10.0, 10.0  # seconds: for the first line, and in addition to the time that the daemon announces

Document = dict[str, Any]


class DaemonUnavailableError(CniError):
    """No lease daemon listens at the socket."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"error dialing DHCP daemon: dial unix {path}: {cause}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="start `pycni serve`, which contains the DHCP lease daemon, or `pycni dhcp-daemon`",
        )


def call(path: str, request: Document) -> Document:
    """Send the request to the daemon at the socket and return its answer.

    Raise DaemonUnavailableError if no daemon listens there, CniError with code 11 if it does not answer or speaks
    another protocol, and the CniError that it answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(TIMEOUT)
        try:
            channel.connect(path)
        except OSError as error:
            raise DaemonUnavailableError(path, (error.strerror or str(error)).lower()) from None
        try:
            channel.sendall(encode(request))
            with channel.makefile("rb") as lines:
                announcement = parse(lines.readline(MAX_LINE))
                channel.settimeout(float(announcement["within"]) + _MARGIN)
                answer = parse(lines.readline(MAX_LINE))
        except TimeoutError:
            raise CniError(
                f"the DHCP lease daemon at {path} does not answer",
                code=Code.TRY_AGAIN_LATER,
                details="restart it: leases survive a restart",
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CniError(
                f"the process that listens at {path} is not pycni's DHCP lease daemon, or has ended: {error}",
                code=Code.TRY_AGAIN_LATER,
                details="stop a Go `dhcp daemon` that uses this socket, and start `pycni serve` or `pycni dhcp-daemon`",
            ) from None
    if "error" in answer:
        failure = CniError.from_json(answer["error"])
        raise CniError(failure.msg, code=failure.code, details=failure.details)
    return answer


def is_served(path: str) -> bool:
    """Return whether a process listens at the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(TIMEOUT)
        try:
            channel.connect(path)
        except OSError:
            return False
        return True


def encode(document: Document) -> bytes:
    """Return the line that transmits the document."""
    return _PREFIX + json.dumps(document).encode() + b"\n"


def parse(line: bytes) -> Document:
    """Return the document in a line. Raise ValueError, whose message says what was received instead."""
    if not line:
        raise ValueError("it closed the connection")
    if not line.startswith(_PREFIX):
        raise ValueError(f'it sent "{options.text(line[:40].strip())}"')
    document = json.loads(line[len(_PREFIX) :])
    if not isinstance(document, dict):
        raise ValueError(f'it sent "{options.text(line[:40].strip())}"')
    return document
