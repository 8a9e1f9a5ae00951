"""The DHCP client of an interface: its identity and the options that it sends and requests.

ADD sends it to the lease daemon, which stores it with the lease.
"""

from hashlib import sha256
from ipaddress import IPv4Address

from pycni.sdk import ConfigDict, Field, Model, Owner

from .message import UNSPECIFIED, Message, MessageType
from .options import Option

_CLIENT_ID_MAX = 254  # bytes; with the type byte, the longest option
_DIGEST = 32  # hexadecimal digits
_MAX_MESSAGE_SIZE = (1500).to_bytes(2, "big")
_OPAQUE = b"\0"  # type of a client identifier that is not a hardware address (RFC 2132 section 9.14)


class DhcpClient(Model):
    """The DHCP client of one interface of a container."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    network: str
    container_id: str
    ifname: str
    netns: str  # an absolute path
    requested_options: tuple[int, ...] = Field(alias="requested")  # the parameter request list
    provided_options: dict[int, bytes] = Field(alias="provided")  # options to send
    priority: int = 0  # metric of the routes
    decline_conflicts: bool = Field(False, alias="declines")  # whether to DECLINE an address that is in use

    def __str__(self) -> str:
        return f"{self.container_id}/{self.network}/{self.ifname}"

    @property
    def owner(self) -> Owner:
        """Return the attachment."""
        return Owner(self.network, self.container_id, self.ifname)

    @property
    def id(self) -> bytes:
        """Return the client identifier in the Go plugin's format, by which servers recognize the client.

        A longer one is shortened and ends in a digest: plainly truncated, it could equal that of another interface.
        """
        text = str(self).encode(errors="replace")
        if len(text) > _CLIENT_ID_MAX:
            digest = sha256(text).hexdigest()[:_DIGEST].encode()
            text = text[: _CLIENT_ID_MAX - len(digest)] + digest
        return _OPAQUE + text

    def message(
        self, message_type: MessageType, xid: int, mac: str, *, ciaddr: IPv4Address = UNSPECIFIED, **fields: bytes
    ) -> Message:
        """Return a message of this client. `fields` are further options, by their names in `Option` in lower case."""
        own: dict[int, bytes] = {Option.CLIENT_ID: self.id}
        if message_type not in (MessageType.RELEASE, MessageType.DECLINE):
            own |= {Option.MAX_MESSAGE_SIZE: _MAX_MESSAGE_SIZE, Option.PARAMETER_LIST: bytes(self.requested_options)}
            own |= self.provided_options
            if ciaddr != UNSPECIFIED:
                own.pop(Option.REQUESTED_ADDRESS, None)  # not in RENEWING and REBINDING (RFC 2131 table 5)
        elif Option.CLIENT_ID in self.provided_options:
            own[Option.CLIENT_ID] = self.provided_options[Option.CLIENT_ID]
        own |= {Option[name.upper()]: value for name, value in fields.items()}
        return Message(message_type, xid, mac, ciaddr, options=own)
