"""Delegation: calling another plugin with a configuration made by this one (SPEC section 4)."""

from collections.abc import Mapping
from typing import Any

from pycni.kernel.journal import Journal
from pycni.protocol import go_json
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.request import Request
from pycni.protocol.result import Result
from pycni.sdk.ipam import Invoke

_PASSED = ("prevResult", "cni.dev/valid-attachments")


class Delegate:
    """The plugin named by `type` in the configuration `document`; `Network.delegate` creates one.

    It is called with the environment of this call, and with `document` plus the prevResult and the valid attachments of
    this call as its configuration.

        def add(self, cni: Attachment[FlannelConfig]) -> Result:
            return cni.delegate({"type": "bridge", "name": cni.name, "cniVersion": "1.0.0", ...}).add()
    """

    def __init__(self, document: Mapping[str, Any], request: Request, invoke: Invoke, journal: Journal) -> None:
        self._plugin = str(document.get("type", ""))
        passed = {key: value for key, value in request.config.items() if key in _PASSED}
        stdin = go_json.dumps_compact({**document, **passed}).encode()
        opened = {"netns": request.netns_fd, "host": request.host_fd}
        self._request = Request.read(request.env, stdin, **opened)
        self._invoke = invoke
        self._journal = journal

    def add(self) -> Result:
        """Call ADD and return the result. The delegate's DEL undoes it if ADD fails, or if this call fails later.

        Raises CniError as the delegate reports it.
        """
        return self._journal.change(f"delegate ADD to {self._plugin}", self._add, lambda: self._run("DEL"))

    def check(self) -> None:
        """Call CHECK. Raises CniError as the delegate reports it."""
        self._run("CHECK")

    def delete(self) -> None:
        """Call DEL. Raises CniError as the delegate reports it."""
        self._run("DEL")

    def gc(self) -> None:
        """Call GC. A failure is reported at the end of this call."""
        self._journal.attempt(f"delegate GC to {self._plugin}", lambda: self._run("GC"))

    def status(self) -> None:
        """Call STATUS. Raises CniError as the delegate reports it if it is not ready."""
        self._run("STATUS")

    def _add(self) -> Result:
        answer = self._run("ADD")
        return answer.result if answer else Result()

    def _run(self, command: str) -> VersionedResult | None:
        return self._invoke(self._plugin, self._request.with_command(command))
