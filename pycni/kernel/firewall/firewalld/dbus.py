"""D-Bus calls to firewalld. A module of its own, so that hosts without firewalld never load jeepney."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from pycni.protocol.address import Address
from pycni.protocol.errors import CniError, Code

_FIREWALLD, _PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_ZONES = DBusAddress(_PATH, _FIREWALLD, f"{_FIREWALLD}.zone")
_TIMEOUT = 30  # seconds; firewalld does not answer while it reloads
_NOT_RUNNING = ("ServiceUnknown", "NameHasNoOwner", "Spawn.")  # in names of D-Bus errors


class FirewalldUnavailableError(CniError):
    """firewalld is not running (code 50)."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"firewalld is not available: {reason}",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="start it (systemctl start firewalld), or configure another backend",
        )


class FirewalldError(CniError):
    """firewalld refused a call. `reason` is its error code, such as "ZONE_ALREADY_SET"."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"{what}: {text}")
        self.reason = text.partition(":")[0]


def source(ip: Address) -> str:
    """Return the address as firewalld writes a source of a zone."""
    return f"{ip}/{ip.max_prefixlen}"


class Bus:
    """A connection to the system bus."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def ask(self, method: str) -> tuple[Any, ...]:
        """Call a method of the bus itself with firewalld's name as argument. Raises CniError."""
        question = new_method_call(_BUS, method, "s", (_FIREWALLD,))
        return self._reply(question, f"the system bus refused {method}")

    def call(self, method: str, zone: str, ip: Address, *, what: str) -> tuple[Any, ...]:
        """Call a method of firewalld's zones; `what` begins the message of an error.

        Raises FirewalldError, FirewalldUnavailableError; CniError, code 11, if firewalld does not answer.
        """
        return self._reply(new_method_call(_ZONES, method, "ss", (zone, source(ip))), what)

    def _reply(self, message: Any, what: str) -> tuple[Any, ...]:
        try:
            answer: tuple[Any, ...] = unwrap_msg(self._connection.send_and_get_reply(message, timeout=_TIMEOUT))
        except DBusErrorResponse as error:
            text = str(error.data[0]) if error.data else error.name
            if any(word in error.name for word in _NOT_RUNNING):
                raise FirewalldUnavailableError(text) from None
            raise FirewalldError(what, text) from None
        except TimeoutError:
            raise CniError(
                f"{what}: firewalld did not answer within {_TIMEOUT} s",
                code=Code.TRY_AGAIN_LATER,
                details="it may be reloading; `firewall-cmd --state` waits until it is ready",
            ) from None
        return answer


@contextmanager
def opened(address: str) -> Iterator[Bus]:
    """Open a connection to the bus at this address. Raises FirewalldUnavailableError if there is no bus."""
    try:
        connection = open_dbus_connection(address)
    except (OSError, ValueError, RuntimeError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise FirewalldUnavailableError(f"there is no system bus at {address}: {reason}") from None
    try:
        yield Bus(connection)
    except OSError as error:
        raise CniError(f"the system bus closed the connection: {error}", code=Code.TRY_AGAIN_LATER) from None
    finally:
        connection.close()
