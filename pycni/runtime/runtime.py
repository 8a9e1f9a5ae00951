"""The runtime: attach containers to networks by calling plugins in order, and remember what they answered.

What libcni does for container engines, under Python names (SPEC section 3; P-440 to P-487). Beyond libcni, all
executables are there before the first is called, a failed ADD is undone, DEL goes on after a failure and reports
all, and every plugin has a deadline.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pycni.protocol import names, version
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError, Code
from pycni.runtime.cache import DEFAULT_DIRECTORY, Cache, CachedAttachment, UnreadableEntryError
from pycni.runtime.configuration import NetworkConfig, PluginConfig
from pycni.runtime.errors import blaming, blaming_nobody, in_context, raise_all
from pycni.runtime.parameters import AttachmentId, RuntimeConf
from pycni.runtime.plugins import Plugins

DEADLINE = 180.0  # seconds; a DHCP server may take its time, a container engine waits two to four minutes

log = logging.getLogger(__name__)


class Runtime:
    """Calls the plugins on `path`; keeps what ADD answered below `cache_dir`.

    A plugin that takes longer than `deadline` seconds is killed, which is an error of code 11. `undo_failed_add`
    says whether a failed ADD is followed by DEL of the whole chain. With `in_process`, plugins of this installation are
    not started but answer in this process, where whoever watches can see their changes.
    """

    def __init__(
        self,
        path: Sequence[str],
        *,
        cache_dir: str | os.PathLike[str] = DEFAULT_DIRECTORY,
        deadline: float | None = DEADLINE,
        undo_failed_add: bool = True,
        in_process: bool = False,
    ) -> None:
        self.plugins = Plugins(path, deadline, in_process=in_process)
        self.cache = Cache(cache_dir)
        self.undo_failed_add = undo_failed_add

    def add_network_list(self, network: NetworkConfig, parameters: RuntimeConf) -> VersionedResult | None:
        """Attach a container: ADD in the list's order; the last plugin's result, None for a list without plugins.

        Raises PluginError, and CniError for names that are not valid.
        """
        names.check_network_name(network.name)
        parameters.check()
        for plugin in network.plugins:
            with blaming(plugin, "add"):
                self.plugins.find(plugin.type)
        result: VersionedResult | None = None
        try:
            for plugin in network.plugins:
                with blaming(plugin, "add"):
                    result = self.plugins.add(network, plugin, parameters, result)
            self._remember(network, parameters, result)
        except BaseException as error:
            self._undo(network, parameters, error)
            raise
        log.info("attached %s of %s to %s", parameters.ifname, parameters.container_id, network.name)
        return result

    def delete_network_list(self, network: NetworkConfig, parameters: RuntimeConf) -> None:
        """Detach a container: DEL in reverse order, on to the end even if one fails (P-458 to P-462).

        An attachment that is not known is a success. Raises PluginError, or CollectedError if there were several.
        """
        prev_result = self._last_known_result(network, parameters)
        failures = self._delete(network, parameters, prev_result)
        raise_all(f'network "{network.name}" could not be left', failures)
        try:
            self.cache.remove(network.name, parameters)
        except CniError as error:
            log.debug("nothing to forget: %s", error)  # under such names nothing is ever kept
        log.info("detached %s of %s from %s", parameters.ifname, parameters.container_id, network.name)

    def check_network_list(self, network: NetworkConfig, parameters: RuntimeConf) -> None:
        """Ask every plugin whether the attachment is as ADD left it; raises the first plugin's CniError (P-465)."""
        if not _allows("CHECK", network):
            raise CniError(
                f'configuration version "{network.cni_version}" does not support the CHECK command',
                code=Code.INCOMPATIBLE_VERSION,
                details=f"CHECK exists since {version.INTRODUCED_IN['CHECK']}",
            )
        if network.disable_check:
            return
        try:
            prev_result = self.cache.result(network.name, parameters, network.cni_version)
        except CniError as error:
            raise in_context(f'failed to get network "{network.name}" cached result', error) from None
        for plugin in network.plugins:
            self.plugins.attached("CHECK", network, plugin, parameters, prev_result)

    def status_network_list(self, network: NetworkConfig) -> None:
        """Ask every plugin whether it is ready for ADD; raises the first plugin's CniError (P-467)."""
        try:
            asked = _allows("STATUS", network)
        except CniError:
            asked = False
        for plugin in network.plugins if asked else ():
            self.plugins.unattached("STATUS", network, plugin, {})

    def gc_network_list(self, network: NetworkConfig, valid: Iterable[AttachmentId] | None) -> None:
        """Detach all of this network that is not in `valid`, then tell the plugins (P-468 to P-470).

        None is not the empty list: all is detached too, but the plugins are given no list and keep what they cannot
        tell. Goes on after failures. Raises PluginError, or CollectedError if there were several.
        """
        if network.disable_gc:
            return
        kept = None if valid is None else list(valid)
        failures = self._delete_stale(network, set(kept or ()))
        values: dict[str, Any] = {}
        if kept is not None:
            listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in kept]
            values = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        for plugin in network.plugins if _allows("GC", network) else ():
            try:
                self.plugins.unattached("GC", network, plugin, values)
            except CniError as error:
                failures.append(in_context(f"failed to GC plugin {plugin.type}", error))
        raise_all(f'network "{network.name}" could not be cleaned up', failures)

    def validate_network_list(self, network: NetworkConfig) -> tuple[str, ...]:
        """See that every plugin is there and speaks the list's version; the capabilities declared, sorted (P-472).

        Raises CniError, or CollectedError if there were several.
        """
        wanted = network.cni_version or version.DEFAULT
        failures = []
        for plugin in network.plugins:
            try:
                if wanted not in self.plugins.versions(plugin.type):
                    msg = f'plugin {plugin.type} does not support config version "{wanted}"'
                    failures.append(CniError(msg, code=Code.INCOMPATIBLE_VERSION))
            except CniError as error:
                failures.append(error)
        raise_all(f'network "{network.name}" cannot be run', failures)
        return tuple(sorted({name for plugin in network.plugins for name in plugin.capabilities}))

    def add_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> VersionedResult:
        """Attach a container by one plugin, under the name and version in its own configuration (P-456)."""
        with blaming_nobody():
            result = self.add_network_list(plugin.as_network(), parameters)
        assert result is not None
        return result

    def delete_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> None:
        """Detach what `add_network` attached."""
        with blaming_nobody():
            self.delete_network_list(plugin.as_network(), parameters)

    def check_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> None:
        """Check what `add_network` attached."""
        self.check_network_list(plugin.as_network(), parameters)

    def validate_network(self, plugin: PluginConfig) -> tuple[str, ...]:
        """See that the plugin is there and speaks the version of its own configuration."""
        return self.validate_network_list(plugin.as_network())

    def plugin_versions(self, plugin: str) -> tuple[str, ...]:
        """The versions of the specification that a type speaks. Raises CniError."""
        return self.plugins.versions(plugin)

    def cached_result(self, network: NetworkConfig, parameters: RuntimeConf) -> VersionedResult | None:
        """What ADD answered, in the network's version; None if it is not known. Raises CniError."""
        document = self.cache.result(network.name, parameters, network.cni_version)
        return None if document is None else VersionedResult.parse(document)

    def cached_config(self, network: NetworkConfig, parameters: RuntimeConf) -> tuple[bytes, RuntimeConf] | None:
        """The configuration list and the arguments of ADD; None if they are not known. Raises CniError."""
        return self.cache.config(network.name, parameters)

    def cached_attachments(self, container_id: str = "") -> list[CachedAttachment]:
        """All that is attached, or all of one container. Raises CniError."""
        return self.cache.attachments(container_id)

    def _remember(self, network: NetworkConfig, parameters: RuntimeConf, result: VersionedResult | None) -> None:
        try:
            self.cache.store(network, parameters, result)
        except CniError as error:
            raise in_context(f'failed to set network "{network.name}" cached result', error) from error

    def _undo(self, network: NetworkConfig, parameters: RuntimeConf, error: BaseException) -> None:
        """Take back a failed ADD; what goes wrong is noted on its error."""
        if not self.undo_failed_add or not network.plugins:
            return
        if self._is_attached(parameters):
            # Two ADDs without a DEL between them: the first one's attachment lives and is not ours to remove.
            error.add_note(f"not undone: {parameters.ifname} of {parameters.container_id} was attached before")
            return
        for failure in self._delete(network, parameters, None):
            error.add_note(f"while undoing it: {failure}")

    def _is_attached(self, parameters: RuntimeConf) -> bool:
        try:
            return any(entry.id == parameters.id for entry in self.cache.attachments(parameters.container_id))
        except CniError:
            return False  # what cannot be listed was not written either

    def _delete(
        self, network: NetworkConfig, parameters: RuntimeConf, prev_result: Mapping[str, Any] | None
    ) -> list[CniError]:
        """DEL of every plugin in reverse order; what failed."""
        failures: list[CniError] = []
        for plugin in reversed(network.plugins):
            try:
                with blaming(plugin, "delete"):
                    self.plugins.attached("DEL", network, plugin, parameters, prev_result)
            except CniError as error:
                failures.append(error)
        return failures

    def _last_known_result(self, network: NetworkConfig, parameters: RuntimeConf) -> dict[str, Any] | None:
        """What ADD answered, for DEL: cannot fail, and gets an unreadable entry out of the way (P-458, P-459)."""
        if not _allows("prevResult on DEL", network):
            return None
        try:
            return self.cache.result(network.name, parameters, network.cni_version)
        except UnreadableEntryError as error:
            kept = self.cache.set_aside(network.name, parameters)
            log.warning("DEL goes without the result of ADD: %s; it is kept as %s", error, kept)
        except CniError as error:
            log.warning("DEL goes without the result of ADD: %s", error)
        return None

    def _delete_stale(self, network: NetworkConfig, valid: set[AttachmentId]) -> list[CniError]:
        try:
            attachments = self.cache.attachments()
        except CniError as error:
            return [error]
        failures = []
        for entry in attachments:
            if entry.network != network.name or entry.id in valid:
                continue
            try:
                self.delete_network_list(network, entry.parameters)
            except CniError as error:
                what = f"failed to delete stale attachment {entry.parameters.container_id} {entry.parameters.ifname}"
                failures.append(in_context(what, error))
        return failures


def _allows(what: str, network: NetworkConfig) -> bool:
    """Whether the list's version has this verb. Raises CniError for a version that is none."""
    try:
        return version.at_least(network.cni_version, version.INTRODUCED_IN.get(what, "0.4.0"))
    except ValueError as error:
        raise CniError(str(error), code=Code.DECODING_FAILURE, details=f'cniVersion of "{network.name}"') from None
