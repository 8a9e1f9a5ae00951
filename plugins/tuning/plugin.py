"""tuning: change sysctls of the container, and settings of the interface that an earlier plugin created.

container
eth0 ── mac, mtu, promisc, allmulti, txQLen         original values: /run/cni/tuning/<container>_eth0.json
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
from .config import TuningConfig, TuningSettings

if TYPE_CHECKING:
    from pycni.sdk import Link  # loads pyroute2, which an ADD with nothing to tune does not need

log = logging.getLogger(__name__)


class Tuning(Plugin[TuningConfig]):
    """The tuning plugin. Without settings it looks at nothing."""

    config = TuningConfig
    cni_args = ("MAC",)

    def add(self, cni: Attachment[TuningConfig]) -> Result:
        """Set the sysctls, back up the settings of the interface, and change them."""
        result, settings = cni.required_prev_result, _effective_settings(cni)
        if settings.sysctl:
            allowlist.check(settings.sysctl)
            cni.container.sysctls.set(sysctls.paths(settings.sysctl, cni.ifname))
        if not settings.link_settings:
            return result
        eth = cni.container.link(cni.ifname)
        _back_up(cni, eth, settings)
        eth.set(**settings.link_settings)
        return _updated(result, eth)

    def check(self, cni: Attachment[TuningConfig]) -> None:
        """Raise CniError if a configured setting has another value."""
        _, settings = cni.required_prev_result, _effective_settings(cni)
        if settings.sysctl:
            cni.container.sysctls.expect(sysctls.paths(settings.sysctl, cni.ifname))
        if settings.link_settings:
            cni.container.link(cni.ifname).expect(**settings.link_settings)

    def delete(self, cni: Attachment[TuningConfig]) -> None:
        """Restore the interface if it still exists. Sysctls stay, because other attachments may depend on them."""
        file = _backup_file(cni)
        original = file.find()
        if original is None:
            return
        eth = cni.find_owned_link()
        if eth is not None:
            try:
                eth.ensure(**original.settings)
            except CniError as error:  # must not fail DEL: the DEL of an earlier plugin removes the interface
                log.warning("cannot restore %s to its settings before ADD: %s", eth, error)
        cni.journal.attempt(f"remove {file}", file.remove)

    def gc(self, cni: Network[TuningConfig]) -> None:
        """Remove the backup files of stale attachments."""
        stale = cni.stale
        for path, original in backup.all_in(cni.config.data_dir):
            if stale.owns(original.owner) or (not original.owner and cni.is_unused_interface(path.stem)):
                cni.journal.attempt(f"remove {path}", path.unlink)

    def status(self, cni: Network[TuningConfig]) -> None:
        """Raise CniError if the allow list cannot be read, or sysctls or `dataDir` are needed and not writable."""
        try:
            allowlist.read()
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE) from None
        settings = cni.config.effective_settings({})
        if settings.sysctl:
            cni.host.sysctls.expect_writable()
        if settings.link_settings and not _is_writable(Path(cni.config.data_dir)):
            raise CniError(f"dataDir {cni.config.data_dir} is not writable", code=Code.PLUGIN_NOT_AVAILABLE)


def _effective_settings(cni: Attachment[TuningConfig]) -> TuningSettings:
    settings = cni.config.effective_settings(cni.args)
    if settings.sysctl:
        sysctls.refuse_duplicates(cni.request.stdin)
    return settings


def _backup_file(cni: Attachment[TuningConfig]) -> BackupFile:
    return BackupFile(cni.config.data_dir, cni.container_id, cni.ifname)


def _back_up(cni: Attachment[TuningConfig], eth: "Link", settings: TuningSettings) -> None:
    """Save the values that will change. Values saved by an earlier ADD stay, because they are the original ones."""
    file = _backup_file(cni)
    current = backup.of({key: getattr(eth.state, key) for key in settings.link_settings}, cni.owner)
    saved = file.find()
    if saved is None:
        cni.journal.change(f"back up the settings of {eth} to {file}", partial(file.save, current), file.remove)
    elif (completed := saved.completed_by(current)) != saved:
        what = f"add settings of {eth} to {file}"
        cni.journal.change(what, partial(file.save, completed), partial(file.save, saved))


def _updated(result: Result, eth: "Link") -> Result:
    """Return the result with the current MAC address of the interface, and its MTU if the result contains one."""
    state = eth.state
    interfaces = (
        replace(interface, mac=state.mac, mtu=state.mtu if interface.mtu else interface.mtu)
        if interface.name == eth.name
        else interface
        for interface in result.interfaces
    )
    return replace(result, interfaces=tuple(interfaces))


def _is_writable(path: Path) -> bool:
    """Return whether the directory is writable or can be created."""
    existing = next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
    return os.access(existing, os.W_OK | os.X_OK)
