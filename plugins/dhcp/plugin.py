"""dhcp: let a DHCP server of the network hand out the address; a keeper renews it for as long as the container lives.

container         keeper (pycni serve, or pycni dhcp-daemon)
eth0 ◄──────────── DISCOVER, REQUEST, RENEW, RELEASE ────────────► DHCP server
                      ▲
dhcp ── ADD, DEL ─────┘ /run/cni/dhcp.sock
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pycni.sdk import Attachment, CniError, Code, ConfigError, Network, Owner, Plugin, Result, yield_turn

from . import conversation
from .client import Client
from .config import DhcpConfig
from .conversation import Document, NoKeeperError
from .lease import Lease
from .store import Store


class Dhcp(Plugin[DhcpConfig]):
    """The plugin; all it changes is what the keeper keeps."""

    config = DhcpConfig

    def add(self, cni: Attachment[DhcpConfig]) -> Result:
        """Have the keeper get a lease for the interface."""
        conf = cni.config
        if "ipam" not in conf.model_fields_set:
            raise ConfigError("missing 'ipam' key", details='dhcp needs ipam with "type": "dhcp"')
        client = Client(
            network=cni.name,
            container_id=cni.container_id,
            ifname=cni.ifname,
            netns=str(Path(cni.request.netns).absolute()),
            requested=conf.requested,
            provided=conf.provided(cni.all_args),
            priority=conf.ipam.priority,
            declines=conf.ipam.decline_conflicts,
        )
        request = {"do": "acquire", "client": client.model_dump(mode="json", by_alias=True)}
        request["incarnation"] = cni.netns_cookie
        answer = cni.journal.change(
            f"acquire a DHCP lease for {cni.ifname}", lambda: _ask(cni, request), lambda: _release(cni)
        )
        return _lease(answer).result(conf.ipam.priority)

    def check(self, cni: Attachment[DhcpConfig]) -> None:
        """See that the keeper has a lease of the addresses in the previous result. No server is asked."""
        answer = _ask(cni, {"do": "check", "owner": _words(cni.owner)})
        lease = _lease(answer)
        if not answer["valid"]:
            raise CniError(f"the DHCP lease of {lease.cidr} for {cni.ifname} has ended", details="no server renews it")
        if answer["incarnation"] != cni.netns_cookie:
            raise CniError(
                f"the DHCP lease of {lease.cidr} is for the interface of another namespace than {cni.request.netns}",
                details="delete the container and add it again",
            )
        addresses = [ip.address.ip for ip in cni.prev_ips if ip.address.version == 4]
        if addresses and lease.address not in addresses:
            raise CniError(
                f"{cni.ifname} has a DHCP lease of {lease.address}, not of {addresses[0]}",
                details="the server has given it another address, which the interface has by now",
            )

    def delete(self, cni: Attachment[DhcpConfig]) -> None:
        """Give the address back."""
        cni.journal.attempt(f"give back the DHCP lease of {cni.ifname}", lambda: _release(cni))

    def gc(self, cni: Network[DhcpConfig]) -> None:
        """Give back the addresses of attachments that are not valid any more."""
        valid = cni.stale.valid
        cni.journal.attempt(f"give back the stale DHCP leases of {cni.name}", lambda: _collect(cni, valid))

    def status(self, cni: Network[DhcpConfig]) -> None:
        """Ready if somebody keeps leases."""
        try:
            _ask(cni, {"do": "status"})
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None

    @classmethod
    def background_service(cls, run: Path) -> AbstractContextManager[None]:
        """The keeper, in the server's process, unless another one is at work."""
        from .daemon import resident

        return resident(run / "cni" / "dhcp.sock")

    @classmethod
    def run_command(cls, arguments: Sequence[str]) -> int | None:
        """Be the keeper, as the Go plugin is when it is started as `dhcp daemon`."""
        if list(arguments[:1]) != ["daemon"]:
            return None
        from .daemon import main

        return main(arguments[1:])


def _ask(cni: Network[DhcpConfig], request: Document) -> Document:
    with yield_turn():
        return conversation.ask(cni.config.socket, request)


def _release(cni: Attachment[DhcpConfig]) -> None:
    try:
        _ask(cni, {"do": "release", "owner": _words(cni.owner)})
    except NoKeeperError:
        _without_keeper(cni, lambda owner: owner == cni.owner)


def _collect(cni: Network[DhcpConfig], valid: Collection[Owner]) -> None:
    try:
        _ask(cni, {"do": "collect", "network": cni.name, "valid": [_words(owner) for owner in valid]})
    except NoKeeperError:
        _without_keeper(cni, lambda owner: owner.network == cni.name and owner not in valid)


def _without_keeper(cni: Network[DhcpConfig], is_wanted: Callable[[Owner], bool]) -> None:
    store = Store.beside(Path(cni.config.socket))
    if any(is_wanted(record.client.owner) for record in store.records()):
        from .leftovers import release_without_keeper  # 50 ms, for what hardly ever happens

        release_without_keeper(store, is_wanted)


def _words(owner: Owner) -> list[str]:
    return [owner.network, owner.container_id, owner.ifname]


def _lease(answer: Document) -> Lease:
    return Lease.model_validate_json(json.dumps(answer["lease"]))
