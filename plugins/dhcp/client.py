"""A DHCP client: who asks, and for what. What ADD tells the keeper, and what the keeper remembers."""

from hashlib import sha256
from ipaddress import IPv4Address

from pycni.sdk import ConfigDict, Model, Owner

from .message import NOBODY, Kind, Message
from .options import Option

_CLIENT_ID_MAX = 254  # with the type before it, what an option holds
_DIGEST = 32  # hexadecimal digits
_MESSAGE_SIZE = (1500).to_bytes(2, "big")
_OPAQUE = b"\0"  # the type of a client identifier that is no hardware address


class Client(Model):
    """The interface of a container that asks for an address."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    network: str
    container_id: str
    ifname: str
    netns: str  # an absolute path
    requested: tuple[int, ...]  # options that the server is asked for
    provided: dict[int, bytes]  # options that it is told
    priority: int = 0  # metric of the routes
    declines: bool = False  # whether an address that somebody has already is no good

    def __str__(self) -> str:
        return f"{self.container_id}/{self.network}/{self.ifname}"

    @property
    def owner(self) -> Owner:
        """The attachment."""
        return Owner(self.network, self.container_id, self.ifname)

    @property
    def id(self) -> bytes:
        """The client identifier, as the Go plugin makes it: servers know the container again by it.

        One that is too long ends in a digest of the whole: cut off, those of two interfaces might be the same.
        """
        text = str(self).encode(errors="replace")
        if len(text) > _CLIENT_ID_MAX:
            digest = sha256(text).hexdigest()[:_DIGEST].encode()
            text = text[: _CLIENT_ID_MAX - len(digest)] + digest
        return _OPAQUE + text

    def message(self, kind: Kind, xid: int, mac: str, *, client: IPv4Address = NOBODY, **about: bytes) -> Message:
        """A message of this client; `about` are its options by their names in Option."""
        own: dict[int, bytes] = {Option.CLIENT_ID: self.id}
        if kind not in (Kind.RELEASE, Kind.DECLINE):
            own |= {Option.MESSAGE_SIZE: _MESSAGE_SIZE, Option.PARAMETERS: bytes(self.requested)}
            own |= self.provided
            if client != NOBODY:
                own.pop(Option.REQUESTED_ADDRESS, None)  # for who has none yet (RFC 2131 table 5)
        elif Option.CLIENT_ID in self.provided:
            own[Option.CLIENT_ID] = self.provided[Option.CLIENT_ID]
        own |= {Option[name.upper()]: value for name, value in about.items()}
        return Message(kind, xid, mac, client, options=own)
