"""flannel: a bridge, or what else is named, with the subnet that flannel's daemon has got for this node.

/run/flannel/subnet.env ─► flannel ─► {"type": "bridge", "ipam": {"type": "host-local", …}} ─► bridge
                              └─► /var/lib/cni/flannel/<container>:<interface>: what DEL undoes
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from pycni.sdk import Attachment, CniError, Field, NetConf, Network, Plugin, Result, field_validator

from . import cache
from .cache import Cache, Document
from .subnetenv import SubnetEnv

log = logging.getLogger(__name__)


class FlannelConfig(NetConf):
    """The options of flannel; README.md explains them."""

    subnet_file: str = "/run/flannel/subnet.env"
    data_dir: str = "/var/lib/cni/flannel"
    delegate: dict[str, Any] = Field(default_factory=dict)
    ipam_base: dict[str, Any] = Field(default_factory=dict, alias="ipam")  # all of it
    runtime_config: dict[str, Any] = Field(default_factory=dict)

    @field_validator("delegate", mode="after")
    @classmethod
    def _delegate_is_completed_here(cls, delegate: Document) -> Document:
        for member in ("name", "ipam"):
            if member in delegate:
                raise ValueError(f"'delegate' dictionary must not have '{member}' field, it'll be set by flannel")
        if not isinstance(delegate.get("type", ""), str):
            raise ValueError("'delegate' dictionary, if present, must have (string) 'type' field")
        return delegate

    @field_validator("ipam_base", mode="after")
    @classmethod
    def _routes_are_a_list(cls, ipam: Document) -> Document:
        if not isinstance(ipam.get("routes") or [], list):
            raise ValueError("failed to parse ipam.routes: it is a list of routes")
        return ipam

    def delegated(self, env: SubnetEnv) -> Document:
        """The configuration of the plugin that does the work; what it is given stands."""
        kind = self.delegate.get("type") or "bridge"
        usual: Document = {"name": self.name, "type": kind, "ipMasq": not env.ip_masq, "mtu": env.mtu}
        if self.cni_version:
            usual["cniVersion"] = self.cni_version
        if kind == "bridge":
            usual["isGateway"] = True
        if self.runtime_config:
            usual["runtimeConfig"] = self.runtime_config
        routes = [*(self.ipam_base.get("routes") or ()), *({"dst": str(network)} for network in env.networks)]
        ranges = [[{"subnet": str(subnet)}] for subnet in env.subnets]
        ipam = {"type": "host-local", **self.ipam_base, "ranges": ranges, "routes": routes}
        return {**usual, **self.delegate, "ipam": ipam}


class Flannel(Plugin[FlannelConfig]):
    """The plugin; all it makes itself is the file that remembers what it delegated."""

    config = FlannelConfig

    def add(self, cni: Attachment[FlannelConfig]) -> Result:
        """Delegate, and remember it first: what is half-made when the power fails must be found by DEL."""
        document = _rendered(cni)
        kept = Cache(cni.config.data_dir, cni.owner)
        before = kept.read_own()  # by an ADD that has succeeded, if this one is its repetition
        undo = kept.remove if before is None else partial(kept.write, before)
        cni.journal.change("remember what is delegated", partial(kept.write, document), undo)
        return cni.delegate(document).add()

    def check(self, cni: Attachment[FlannelConfig]) -> None:
        """Have the delegate check what it made."""
        cni.delegate(_known(cni) or _rendered(cni)).check()

    def delete(self, cni: Attachment[FlannelConfig]) -> None:
        """Have the delegate remove what it made; only then is it forgotten."""
        document, kept = _known(cni), Cache(cni.config.data_dir, cni.owner)
        if document is None:
            self._delete_what_may_be_there(cni)
            return

        def undo() -> None:
            cni.delegate(document).delete()
            kept.remove()

        cni.journal.attempt("remove what was delegated", undo)

    def _delete_what_may_be_there(self, cni: Attachment[FlannelConfig]) -> None:
        """Where nothing is remembered: there was no ADD, or it failed, or the files are lost."""
        document = _rendered_if_possible(cni)
        try:
            if document is not None:
                cni.delegate(document).delete()
        except CniError as error:
            log.info("what would be delegated now cannot be removed: %s", error)

    def status(self, cni: Network[FlannelConfig]) -> None:
        """Ready if the node has a subnet, and the delegate is ready."""
        cni.delegate(_rendered(cni)).status()

    def gc(self, cni: Network[FlannelConfig]) -> None:
        """Have the delegate collect garbage, and forget what was delegated for attachments that are gone."""
        document = _rendered_if_possible(cni)
        if document is not None:
            cni.delegate(document).gc()
        for kept in cache.stale(cni.config.data_dir, cni.name, cni.valid_attachments or ()):
            cni.journal.attempt("forget what was delegated", kept.remove)


def _rendered(cni: Network[FlannelConfig]) -> Document:
    return cni.config.delegated(SubnetEnv.load(Path(cni.config.subnet_file)))


def _rendered_if_possible(cni: Network[FlannelConfig]) -> Document | None:
    """What would be delegated now, where it is not known what was; None where that cannot be said either."""
    try:
        return _rendered(cni)
    except CniError:
        return None


def _known(cni: Attachment[FlannelConfig]) -> Document | None:
    return Cache(cni.config.data_dir, cni.owner).read()
