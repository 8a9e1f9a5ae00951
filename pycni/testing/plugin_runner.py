"""A runtime in miniature: one plugin, one container, with prevResult handed on as real runtimes do."""

import json
import os
from typing import Any

from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError
from pycni.sdk.dispatch import Response
from pycni.testing import transport
from pycni.testing.topology import Container


class PluginRunner:
    """Calls one plugin for one attachment. Keyword arguments are keys of the network configuration.

    `previous` is the result of the plugins before it in the chain, which ADD is given as prevResult.
    host-local keeps its addresses in a directory of the test, unless the configuration names one.
    """

    def __init__(
        self,
        plugin: str,
        container: Container,
        *,
        ifname: str = "eth0",
        previous: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        self.plugin = plugin
        self.container = container
        self.netns = container.path
        self.ifname = ifname
        self.previous = previous
        self.cni_args = ""
        self.config = {"cniVersion": "1.1.0", "name": "test", "type": plugin, **config}
        self.result: dict[str, Any] | None = None
        ipam = self.config.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == "host-local":
            self.config["ipam"] = {"dataDir": str(container.host.state / "networks"), **ipam}

    @property
    def owner(self) -> Owner:
        """Whose label the things of this attachment carry."""
        return Owner(str(self.config["name"]), self.container.id, self.ifname)

    def add(self) -> dict[str, Any]:
        """ADD; returns the result. Raises CniError."""
        before = {} if self.previous is None else {"prevResult": self.previous}
        reply: dict[str, Any] = json.loads(self._call("ADD", before).stdout)
        self.result = reply
        return reply

    def check(self) -> None:
        """CHECK with the result of the last ADD as prevResult. Raises CniError."""
        self._call("CHECK", self._previous())

    def delete(self) -> None:
        """DEL with the result of the last ADD, if there was one, as prevResult. Raises CniError."""
        self._call("DEL", self._previous())

    def status(self) -> None:
        """STATUS. Raises CniError."""
        self._call("STATUS")

    def gc(self, *valid: "PluginRunner") -> None:
        """GC with these attachments as the valid ones. Raises CniError."""
        entries = [{"containerID": other.container.id, "ifname": other.ifname} for other in valid]
        self._call("GC", {"cni.dev/valid-attachments": entries})

    def forget(self) -> None:
        """Lose the result: the next DEL comes without prevResult, as from a runtime that lost its cache."""
        self.result = None

    def _previous(self) -> dict[str, Any]:
        return {} if self.result is None else {"prevResult": self.result}

    def _call(self, command: str, extra: dict[str, Any] | None = None) -> Response:
        env = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.cni_args,
            "CNI_PATH": str(self.container.host.state / "bin"),
        }
        stdin = json.dumps({**self.config, **(extra or {})}).encode()
        reply = transport.call(self.plugin, env, stdin)
        if reply.status:
            raise CniError.from_json(json.loads(reply.stdout))
        return reply
