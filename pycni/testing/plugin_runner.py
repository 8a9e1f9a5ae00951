"""A runner that calls one plugin for one attachment, as a container runtime does."""

import json
import os
from typing import Any

from pycni.kernel.owner import Owner
from pycni.protocol.errors import CniError
from pycni.sdk.dispatch import Response
from pycni.testing import transport
from pycni.testing.topology import Container


class PluginRunner:
    """Calls one plugin for one attachment. Keyword arguments are members of the network configuration.

    `previous` is the result of the plugins before it in the plugin chain: the prevResult of ADD. host-local keeps its
    reservations in a directory of the test, unless the configuration has a `dataDir`. `cni_args` is CNI_ARGS.

        runner = PluginRunner("bridge", container, bridge="br0", ipam={"type": "host-local", "subnet": "10.1.0.0/24"})
        result = runner.add()
        runner.check()
        runner.delete()
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
        """The owner of what the plugin creates for this attachment."""
        return Owner(str(self.config["name"]), self.container.id, self.ifname)

    def add(self) -> dict[str, Any]:
        """Call ADD and return the result, a JSON object. Raises CniError as the plugin reports it."""
        before = {} if self.previous is None else {"prevResult": self.previous}
        reply: dict[str, Any] = json.loads(self._call("ADD", before).stdout)
        self.result = reply
        return reply

    def check(self) -> None:
        """Call CHECK with the result of the last ADD as prevResult. Raises CniError as the plugin reports it."""
        self._call("CHECK", self._previous())

    def delete(self) -> None:
        """Call DEL with the result of the last ADD, if any, as prevResult. Raises CniError as the plugin reports it."""
        self._call("DEL", self._previous())

    def status(self) -> None:
        """Call STATUS. Raises CniError as the plugin reports it."""
        self._call("STATUS")

    def gc(self, *valid: "PluginRunner") -> None:
        """Call GC with `valid` as the valid attachments. Raises CniError as the plugin reports it."""
        entries = [{"containerID": other.container.id, "ifname": other.ifname} for other in valid]
        self._call("GC", {"cni.dev/valid-attachments": entries})

    def forget(self) -> None:
        """Forget the result of ADD: the next DEL has no prevResult, as from a runtime that lost its cache."""
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
