"""Another plugin that does the work of this one: asked with a configuration of our making (SPEC section 4)."""

from collections.abc import Mapping
from typing import Any

from pycni.kernel.journal import Journal
from pycni.protocol import go_json
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError
from pycni.protocol.request import Request
from pycni.protocol.result import Result
from pycni.sdk.ipam import Invoke

_PASSED = ("prevResult", "cni.dev/valid-attachments")


class Delegate:
    """The plugin that `document` names as its type. It gets this call's environment and prevResult."""

    def __init__(self, document: Mapping[str, Any], request: Request, invoke: Invoke, journal: Journal) -> None:
        self._plugin = str(document.get("type", ""))
        passed = {key: value for key, value in request.config.items() if key in _PASSED}
        stdin = go_json.dumps_compact({**document, **passed}).encode()
        opened = {"netns": request.netns_fd, "host": request.host_fd}
        self._request = Request.read(request.env, stdin, **opened)
        self._invoke = invoke
        self._journal = journal

    def add(self) -> Result:
        """Have it make what it makes; it is undone if the call fails. Raises CniError as the plugin says."""
        return self._journal.change(f"delegate ADD to {self._plugin}", self._add, lambda: self._run("DEL"))

    def check(self) -> None:
        """Have it see that all is as it made it."""
        self._run("CHECK")

    def delete(self) -> None:
        """Have it remove what it made. Raises CniError."""
        self._run("DEL")

    def gc(self) -> None:
        """Have it remove what belongs to no valid attachment."""
        self._journal.attempt(f"let {self._plugin} collect garbage", lambda: self._run("GC"))

    def status(self) -> None:
        """Raise what it answers if it is not ready."""
        self._run("STATUS")

    def _add(self) -> Result:
        try:
            answer = self._run("ADD")
        except (CniError, ValueError) as error:
            if not (isinstance(error, CniError) and error.rolled_back):
                self._clean_up_after(error)
            raise
        return answer.result if answer else Result()

    def _clean_up_after(self, error: Exception) -> None:
        """What it may have made before it failed is removed (SPEC section 4)."""
        try:
            self._run("DEL")
        except CniError as second:
            error.add_note(f"DEL of {self._plugin} failed too: {second}")

    def _run(self, command: str) -> VersionedResult | None:
        return self._invoke(self._plugin, self._request.with_command(command))
