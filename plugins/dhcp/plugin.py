"""dhcp: get an IPv4 address from a DHCP server of the network. A lease daemon renews the lease.

container         lease daemon (pycni serve, or pycni dhcp-daemon)
eth0 ◄──────────── DISCOVER, REQUEST, RENEW, RELEASE ────────────► DHCP server
                      ▲
dhcp ── ADD, DEL ─────┘ /run/cni/dhcp.sock
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pycni.sdk import Attachment, CniError, Code, ConfigError, Network, Owner, Plugin, Result, yield_turn

from . import daemon_protocol
from .client import DhcpClient
from .config import DhcpConfig
from .daemon_protocol import DaemonUnavailableError, Document
from .lease import DhcpLease
from .lease_store import LeaseStore


class Dhcp(Plugin[DhcpConfig]):
    """The dhcp plugin. It asks the lease daemon and changes nothing itself."""

    config = DhcpConfig

    def add(self, cni: Attachment[DhcpConfig]) -> Result:
        """Ask the lease daemon to acquire a lease for the interface, and return the address."""
        conf = cni.config
        if "ipam" not in conf.model_fields_set:
            raise ConfigError("missing 'ipam' key", details='add an ipam object with "type": "dhcp"')
        client = DhcpClient(
            network=cni.name,
            container_id=cni.container_id,
            ifname=cni.ifname,
            netns=str(Path(cni.request.netns).absolute()),
            requested_options=conf.requested_options,
            provided_options=conf.provided_options(cni.all_args),
            priority=conf.ipam.priority,
            decline_conflicts=conf.ipam.decline_conflicts,
        )
        request = {"do": "acquire", "client": client.model_dump(mode="json", by_alias=True)}
        request["incarnation"] = cni.netns_cookie
        answer = cni.journal.change(
            f"acquire a DHCP lease for {cni.ifname}",
            lambda: _call_daemon(cni, request),
            lambda: _release(cni),
            atomic=True,
        )
        return _lease_in(answer).result(conf.ipam.priority)

    def check(self, cni: Attachment[DhcpConfig]) -> None:
        """Raise CniError unless the lease daemon has a valid lease of the address in prevResult. No server is asked."""
        answer = _call_daemon(cni, {"do": "check", "owner": _owner_document(cni.owner)})
        lease = _lease_in(answer)
        if not answer["valid"]:
            raise CniError(f"the DHCP lease of {lease.cidr} for {cni.ifname} has ended", details="no server renewed it")
        if answer["incarnation"] != cni.netns_cookie:
            raise CniError(
                f"the DHCP lease of {lease.cidr} belongs to another network namespace than {cni.request.netns}",
                details="delete the container and add it again",
            )
        addresses = [ip.address.ip for ip in cni.prev_ips if ip.address.version == 4]
        if addresses and lease.address not in addresses:
            raise CniError(
                f"{cni.ifname} has a DHCP lease of {lease.address}, not of {addresses[0]}",
                details="the DHCP server assigned another address; delete and add the container",
            )

    def delete(self, cni: Attachment[DhcpConfig]) -> None:
        """Release the lease."""
        cni.journal.attempt(f"release the DHCP lease of {cni.ifname}", lambda: _release(cni))

    def gc(self, cni: Network[DhcpConfig]) -> None:
        """Release the leases of stale attachments."""
        valid = cni.stale.valid
        cni.journal.attempt(f"release the stale DHCP leases of {cni.name}", lambda: _collect(cni, valid))

    def status(self, cni: Network[DhcpConfig]) -> None:
        """Raise CniError, code 50, if no lease daemon answers."""
        try:
            _call_daemon(cni, {"do": "status"})
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None

    @classmethod
    def background_service(cls, run: Path) -> AbstractContextManager[Callable[[], bool]]:
        """Return the lease daemon in a thread of the server."""
        from .daemon_main import background_service

        return background_service(run / "cni" / "dhcp.sock")

    @classmethod
    def run_command(cls, arguments: Sequence[str]) -> int | None:
        """Run the lease daemon if started as `dhcp daemon`, like the Go plugin."""
        if list(arguments[:1]) != ["daemon"]:
            return None
        from .daemon_main import main

        return main(arguments[1:])


def _call_daemon(cni: Network[DhcpConfig], request: Document) -> Document:
    with yield_turn():
        return daemon_protocol.call(cni.config.socket, request)


def _release(cni: Attachment[DhcpConfig]) -> None:
    try:
        _call_daemon(cni, {"do": "release", "owner": _owner_document(cni.owner)})
    except DaemonUnavailableError:
        _release_without_daemon(cni, lambda owner: owner == cni.owner)


def _collect(cni: Network[DhcpConfig], valid: Collection[Owner]) -> None:
    try:
        _call_daemon(cni, {"do": "collect", "network": cni.name, "valid": [_owner_document(owner) for owner in valid]})
    except DaemonUnavailableError:
        _release_without_daemon(cni, lambda owner: owner.network == cni.name and owner not in valid)


def _release_without_daemon(cni: Network[DhcpConfig], is_wanted: Callable[[Owner], bool]) -> None:
    store = LeaseStore.beside(Path(cni.config.socket))
    if any(is_wanted(record.client.owner) for record in store.records()):
        from .release import release_without_daemon  # takes 50 ms to import, and is rarely needed

        release_without_daemon(store, is_wanted)


def _owner_document(owner: Owner) -> list[str]:
    return [owner.network, owner.container_id, owner.ifname]


def _lease_in(answer: Document) -> DhcpLease:
    return DhcpLease.model_validate_json(json.dumps(answer["lease"]))
