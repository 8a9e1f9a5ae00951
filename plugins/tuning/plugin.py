"""tuning: change sysctls and the interface that an earlier plugin of the chain made.

container
eth0 ── mac, mtu, promisc, allmulti, txQLen         before: /run/cni/tuning/<container>_eth0.json
/proc/sys/net ── sysctl
"""

import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pycni.sdk import Attachment, CniError, Code, Network, Plugin, Result

from . import allowlist, backup, sysctls
from .backup import BackupFile
from .config import Settings, TuningConfig

if TYPE_CHECKING:
    from pycni.sdk import Link  # loads pyroute2, which an ADD with nothing to tune does not need

log = logging.getLogger(__name__)


class Tuning(Plugin[TuningConfig]):
    """The plugin; with nothing to tune it looks at nothing."""

    config = TuningConfig
    cni_args = ("MAC",)

    def add(self, cni: Attachment[TuningConfig]) -> Result:
        """Set the sysctls, keep what the interface is like, change it."""
        result, wanted = cni.required_prev_result, _wanted(cni)
        if wanted.sysctl:
            allowlist.check(wanted.sysctl)
            cni.container.sysctls.set(sysctls.paths(wanted.sysctl, cni.ifname))
        if not wanted.of_link:
            return result
        eth = cni.container.link(cni.ifname)
        _keep(cni, eth, wanted)
        eth.set(**wanted.of_link)
        return _renewed(result, eth)

    def check(self, cni: Attachment[TuningConfig]) -> None:
        """See that everything is as configured; of what is not configured, nothing is expected."""
        _, wanted = cni.required_prev_result, _wanted(cni)
        if wanted.sysctl:
            cni.container.sysctls.expect(sysctls.paths(wanted.sysctl, cni.ifname))
        if wanted.of_link:
            cni.container.link(cni.ifname).expect(**wanted.of_link)

    def delete(self, cni: Attachment[TuningConfig]) -> None:
        """Make the interface what it was, if it is still there; sysctls stay, others may count on them."""
        file = _file(cni)
        former = file.find()
        if former is None:
            return
        eth = cni.find_owned_link()
        if eth is not None:
            try:
                eth.ensure(**former.settings)
            except CniError as error:  # the next DEL of the chain removes the interface: that must not wait for this
                log.warning("%s is not as it was before ADD: %s", eth, error)
        cni.journal.attempt(f"remove {file}", file.remove)

    def gc(self, cni: Network[TuningConfig]) -> None:
        """Remove the backups of attachments that are not valid any more."""
        stale = cni.stale
        for path, former in backup.all_in(cni.config.data_dir):
            if stale.owns(former.owner) or (not former.owner and cni.is_unused_interface(path.stem)):
                cni.journal.attempt(f"remove {path}", path.unlink)

    def status(self, cni: Network[TuningConfig]) -> None:
        """Ready if the allowlist can be read, and what is configured could be written."""
        try:
            allowlist.read()
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE) from None
        wanted = cni.config.wanted({})
        if wanted.sysctl:
            cni.host.sysctls.expect_writable()
        if wanted.of_link and not _is_writable(Path(cni.config.data_dir)):
            raise CniError(f"dataDir {cni.config.data_dir} is not writable", code=Code.PLUGIN_NOT_AVAILABLE)


def _wanted(cni: Attachment[TuningConfig]) -> Settings:
    wanted = cni.config.wanted(cni.args)
    if wanted.sysctl:
        sysctls.refuse_duplicates(cni.request.stdin)
    return wanted


def _file(cni: Attachment[TuningConfig]) -> BackupFile:
    return BackupFile(cni.config.data_dir, cni.container_id, cni.ifname)


def _keep(cni: Attachment[TuningConfig], eth: "Link", wanted: Settings) -> None:
    """Write down what will be changed. What an earlier ADD wrote down stays: it is how the link was made (R-45)."""
    file, now = _file(cni), backup.of({key: getattr(eth.state, key) for key in wanted.of_link}, cni.owner)
    before = file.find()
    if before is None:
        cni.journal.change(f"keep what {eth} is like in {file}", partial(file.keep, now), file.remove)
    elif (completed := before.completed_by(now)) != before:
        cni.journal.change(f"keep more of {eth} in {file}", partial(file.keep, completed), partial(file.keep, before))


def _renewed(result: Result, eth: "Link") -> Result:
    """The result with the MAC, and the MTU where it names one, that the interface has now."""
    state = eth.state
    interfaces = (
        replace(interface, mac=state.mac, mtu=state.mtu if interface.mtu else interface.mtu)
        if interface.name == eth.name
        else interface
        for interface in result.interfaces
    )
    return replace(result, interfaces=tuple(interfaces))


def _is_writable(path: Path) -> bool:
    """Whether the directory can be written, or made."""
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return os.access(existing, os.W_OK | os.X_OK)
