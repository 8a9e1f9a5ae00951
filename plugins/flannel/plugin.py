"""flannel: call another plugin, by default bridge, with the subnet that the flannel daemon has for this node.

/run/flannel/subnet.env ─► flannel ─► {"type": "bridge", "ipam": {"type": "host-local", …}} ─► bridge
                              └─► /var/lib/cni/flannel/<container>:<interface>: delegate configuration for DEL
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from pycni.sdk import Attachment, CniError, Field, NetConf, Network, Plugin, Result, field_validator

from . import cache
from .cache import CacheEntry, Document
from .subnet_env import SubnetEnv

log = logging.getLogger(__name__)


class FlannelConfig(NetConf):
    """Configuration of flannel. README.md describes the options."""

    subnet_file: str = "/run/flannel/subnet.env"
    data_dir: str = "/var/lib/cni/flannel"
    delegate: dict[str, Any] = Field(default_factory=dict)
    ipam_base: dict[str, Any] = Field(default_factory=dict, alias="ipam")  # unparsed, for the delegate
    runtime_config: dict[str, Any] = Field(default_factory=dict)

    @field_validator("delegate", mode="after")
    @classmethod
    def _delegate_lacks_generated_members(cls, delegate: Document) -> Document:
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
            raise ValueError("failed to parse ipam.routes: use a list of routes")
        return ipam

    def delegate_config(self, env: SubnetEnv) -> Document:
        """Return the configuration of the delegate. Members of `delegate` override the generated ones."""
        kind = self.delegate.get("type") or "bridge"
        generated: Document = {"name": self.name, "type": kind, "ipMasq": not env.ip_masq, "mtu": env.mtu}
        if self.cni_version:
            generated["cniVersion"] = self.cni_version
        if kind == "bridge":
            generated["isGateway"] = True
        if self.runtime_config:
            generated["runtimeConfig"] = self.runtime_config
        routes = [*(self.ipam_base.get("routes") or ()), *({"dst": str(network)} for network in env.networks)]
        ranges = [[{"subnet": str(subnet)}] for subnet in env.subnets]
        ipam = {"type": "host-local", **self.ipam_base, "ranges": ranges, "routes": routes}
        return {**generated, **self.delegate, "ipam": ipam}


class Flannel(Plugin[FlannelConfig]):
    """The flannel plugin. It creates only the cache files itself."""

    config = FlannelConfig

    def add(self, cni: Attachment[FlannelConfig]) -> Result:
        """Save the delegate configuration, then call the delegate, so that DEL also works after a crash in between."""
        document = _delegate_config(cni)
        entry = CacheEntry(cni.config.data_dir, cni.owner)
        previous = entry.read_attachment_file()  # exists if this is a repeated ADD
        undo = entry.remove if previous is None else partial(entry.write, previous)
        cni.journal.change("cache the delegate configuration", partial(entry.write, document), undo)
        return cni.delegate(document).add()

    def check(self, cni: Attachment[FlannelConfig]) -> None:
        """Call CHECK of the delegate."""
        cni.delegate(_cached_config(cni) or _delegate_config(cni)).check()

    def delete(self, cni: Attachment[FlannelConfig]) -> None:
        """Call DEL of the delegate, and remove the cache files only if it succeeds, so that DEL can be repeated."""
        document, entry = _cached_config(cni), CacheEntry(cni.config.data_dir, cni.owner)
        if document is None:
            self._delete_without_cache(cni)
            return

        def do() -> None:
            cni.delegate(document).delete()
            entry.remove()

        cni.journal.attempt("call DEL of the delegate", do)

    def _delete_without_cache(self, cni: Attachment[FlannelConfig]) -> None:
        """Call DEL with the current configuration: there was no ADD, it failed, or the cache is lost."""
        document = _find_delegate_config(cni)
        try:
            if document is not None:
                cni.delegate(document).delete()
        except CniError as error:
            log.info("no cached configuration, and DEL of the delegate with the current one failed: %s", error)

    def status(self, cni: Network[FlannelConfig]) -> None:
        """Raise CniError if the node has no subnet, or the delegate is not available."""
        cni.delegate(_delegate_config(cni)).status()

    def gc(self, cni: Network[FlannelConfig]) -> None:
        """Call GC of the delegate, and remove the cache files of stale attachments."""
        document = _find_delegate_config(cni)
        if document is not None:
            cni.delegate(document).gc()
        for stale in cache.stale(cni.config.data_dir, cni.name, cni.valid_attachments or ()):
            cni.journal.attempt("remove a cached delegate configuration", stale.remove)


def _delegate_config(cni: Network[FlannelConfig]) -> Document:
    return cni.config.delegate_config(SubnetEnv.load(Path(cni.config.subnet_file)))


def _find_delegate_config(cni: Network[FlannelConfig]) -> Document | None:
    """Return the delegate configuration of the current `subnet.env`; None if that cannot be read."""
    try:
        return _delegate_config(cni)
    except CniError:
        return None


def _cached_config(cni: Attachment[FlannelConfig]) -> Document | None:
    """Return the delegate configuration of ADD; None if it is not cached."""
    return CacheEntry(cni.config.data_dir, cni.owner).read()
