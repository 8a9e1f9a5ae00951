"""The runtime: attaches containers to networks by executing plugin chains, and caches the results.

It implements SPEC section 3 as libcni does. In addition, it verifies that all executables exist before it calls the
first, rolls back a failed ADD, continues DEL after a failure and reports all failures, and gives every plugin a
deadline.
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
from pycni.runtime.errors import in_context, naming_plugin, raise_all, unnamed_plugin
from pycni.runtime.parameters import AttachmentId, RuntimeConf
from pycni.runtime.plugins import Plugins

DEADLINE = 180.0  # seconds; DHCP can take over a minute, container engines wait two to four minutes

log = logging.getLogger(__name__)


class Runtime:
    """Executes plugins from the directories in `path` and caches ADD results in `cache_dir`.

    A plugin that runs longer than `deadline` seconds is killed; the call fails with code 11. With `undo_failed_add`,
    DEL of the whole chain follows a failed ADD. With `in_process`, plugins of this installation run in this process, so
    that a journal watcher sees their changes.
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
        """Call ADD for each plugin in order; return the last result, or None if the list has no plugins.

        Raise PluginError if a plugin fails, and CniError for an invalid network name, container id or interface name.
        """
        names.check_network_name(network.name)
        parameters.check()
        for plugin in network.plugins:
            with naming_plugin(plugin, "add"):
                self.plugins.find(plugin.type)
        result: VersionedResult | None = None
        try:
            for plugin in network.plugins:
                with naming_plugin(plugin, "add"):
                    result = self.plugins.add(network, plugin, parameters, result)
            self._remember(network, parameters, result)
        except BaseException as error:
            self._undo(network, parameters, error)
            raise
        log.info("attached %s of %s to %s", parameters.ifname, parameters.container_id, network.name)
        return result

    def delete_network_list(self, network: NetworkConfig, parameters: RuntimeConf) -> None:
        """Call DEL for each plugin in reverse order; continue after a failure.

        An unknown attachment is not an error. Raise PluginError, or CollectedError if several plugins fail. SPEC
        section 3 stops at the first failure; continuing frees what the remaining plugins hold.
        """
        prev_result = self._last_known_result(network, parameters)
        failures = self._delete(network, parameters, prev_result)
        raise_all(f'network "{network.name}" could not be detached', failures)
        try:
            self.cache.remove(network.name, parameters)
        except CniError as error:
            log.debug("no cache entry to delete: %s", error)  # an invalid name is never cached
        log.info("detached %s of %s from %s", parameters.ifname, parameters.container_id, network.name)

    def check_network_list(self, network: NetworkConfig, parameters: RuntimeConf) -> None:
        """Call CHECK for each plugin in order; raise the first plugin's CniError (SPEC section 3)."""
        if not _allows("CHECK", network):
            raise CniError(
                f'configuration version "{network.cni_version}" does not support the CHECK command',
                code=Code.INCOMPATIBLE_VERSION,
                details=f"CHECK needs cniVersion {version.INTRODUCED_IN['CHECK']} or newer",
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
        """Call STATUS for each plugin in order; raise the first plugin's CniError (SPEC section 3)."""
        try:
            asked = _allows("STATUS", network)
        except CniError:
            asked = False
        for plugin in network.plugins if asked else ():
            self.plugins.unattached("STATUS", network, plugin, {})

    def gc_network_list(self, network: NetworkConfig, valid: Iterable[AttachmentId] | None) -> None:
        """Call DEL for every cached attachment that is not in `valid`, then GC for each plugin.

        With None, all cached attachments are deleted and the plugins get no list, so they remove nothing themselves.
        With an empty list, the plugins remove everything that belongs to the network. Continue after failures. Raise
        PluginError, or CollectedError if several calls fail.
        """
        if network.disable_gc:
            return
        attachments = None if valid is None else list(valid)
        failures = self._delete_stale(network, set(attachments or ()))
        values: dict[str, Any] = {}
        if attachments is not None:
            listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in attachments]
            values = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
        for plugin in network.plugins if _allows("GC", network) else ():
            try:
                self.plugins.unattached("GC", network, plugin, values)
            except CniError as error:
                failures.append(in_context(f"failed to GC plugin {plugin.type}", error))
        raise_all(f'network "{network.name}" could not be cleaned up', failures)

    def validate_network_list(self, network: NetworkConfig) -> tuple[str, ...]:
        """Verify that every plugin exists and supports the list's version; return the declared capabilities, sorted.

        Raise CniError, or CollectedError if several plugins fail.
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
        raise_all(f'network "{network.name}" is not usable', failures)
        return tuple(sorted({name for plugin in network.plugins for name in plugin.capabilities}))

    def add_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> VersionedResult:
        """Call ADD of a single plugin, with the name and version of its own configuration."""
        with unnamed_plugin():
            result = self.add_network_list(plugin.as_network(), parameters)
        assert result is not None
        return result

    def delete_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> None:
        """Call DEL for an attachment made by `add_network`."""
        with unnamed_plugin():
            self.delete_network_list(plugin.as_network(), parameters)

    def check_network(self, plugin: PluginConfig, parameters: RuntimeConf) -> None:
        """Call CHECK for an attachment made by `add_network`."""
        self.check_network_list(plugin.as_network(), parameters)

    def validate_network(self, plugin: PluginConfig) -> tuple[str, ...]:
        """Verify that the plugin exists and supports the version of its own configuration."""
        return self.validate_network_list(plugin.as_network())

    def plugin_versions(self, plugin: str) -> tuple[str, ...]:
        """Return the CNI versions that a plugin supports. Raise CniError."""
        return self.plugins.versions(plugin)

    def cached_result(self, network: NetworkConfig, parameters: RuntimeConf) -> VersionedResult | None:
        """Return the cached result of ADD in the network's version; None if there is none. Raise CniError."""
        document = self.cache.result(network.name, parameters, network.cni_version)
        return None if document is None else VersionedResult.parse(document)

    def cached_config(self, network: NetworkConfig, parameters: RuntimeConf) -> tuple[bytes, RuntimeConf] | None:
        """Return the cached configuration list and parameters of ADD; None if there are none. Raise CniError."""
        return self.cache.config(network.name, parameters)

    def cached_attachments(self, container_id: str = "") -> list[CachedAttachment]:
        """Return all cached attachments, or those of one container. Raise CniError."""
        return self.cache.attachments(container_id)

    def _remember(self, network: NetworkConfig, parameters: RuntimeConf, result: VersionedResult | None) -> None:
        try:
            self.cache.store(network, parameters, result)
        except CniError as error:
            raise in_context(f'failed to set network "{network.name}" cached result', error) from error

    def _undo(self, network: NetworkConfig, parameters: RuntimeConf, error: BaseException) -> None:
        """Call DEL after a failed ADD; failures of DEL become notes of `error`."""
        if not self.undo_failed_add or not network.plugins:
            return
        if self._is_attached(parameters):
            # Two ADDs without a DEL between them: the attachment of the first must survive.
            error.add_note(f"not rolled back: {parameters.ifname} of {parameters.container_id} was attached before")
            return
        for failure in self._delete(network, parameters, None):
            error.add_note(f"during rollback: {failure}")

    def _is_attached(self, parameters: RuntimeConf) -> bool:
        try:
            return any(entry.id == parameters.id for entry in self.cache.attachments(parameters.container_id))
        except CniError:
            return False  # the cache cannot be listed, so ADD did not write to it

    def _delete(
        self, network: NetworkConfig, parameters: RuntimeConf, prev_result: Mapping[str, Any] | None
    ) -> list[CniError]:
        """Call DEL for each plugin in reverse order; return the failures."""
        failures: list[CniError] = []
        for plugin in reversed(network.plugins):
            try:
                with naming_plugin(plugin, "delete"):
                    self.plugins.attached("DEL", network, plugin, parameters, prev_result)
            except CniError as error:
                failures.append(error)
        return failures

    def _last_known_result(self, network: NetworkConfig, parameters: RuntimeConf) -> dict[str, Any] | None:
        """Return the prevResult for DEL, or None. Never raises; an unreadable cache entry is moved aside."""
        if not _allows("prevResult on DEL", network):
            return None
        try:
            return self.cache.result(network.name, parameters, network.cni_version)
        except UnreadableEntryError as error:
            moved = self.cache.set_aside(network.name, parameters)
            log.warning("DEL without prevResult: %s; moved to %s", error, moved)
        except CniError as error:
            log.warning("DEL without prevResult: %s", error)
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
    """Return whether the list's version has this verb. Raise CniError for an invalid version."""
    try:
        return version.at_least(network.cni_version, version.INTRODUCED_IN.get(what, "0.4.0"))
    except ValueError as error:
        raise CniError(str(error), code=Code.DECODING_FAILURE, details=f'cniVersion of "{network.name}"') from None
