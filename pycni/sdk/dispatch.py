"""Handle one call of a plugin: from environment and stdin to stdout and exit status."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from pycni import __version__
from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import is_own_namespace
from pycni.protocol import cni_args, conversion, go_json, version
from pycni.protocol.conversion import VersionedResult
from pycni.protocol.errors import CniError, Code
from pycni.protocol.request import Request
from pycni.protocol.result import Result
from pycni.sdk.attachment import Attachment, Network
from pycni.sdk.config import NetConf
from pycni.sdk.ipam import Invoke
from pycni.sdk.plugin import Plugin
from pycni.sdk.upgrade import is_caused_by_upgrade, upgrade_error

log = logging.getLogger(__name__)
T = TypeVar("T")

# The release of the Go reference plugins that these plugins replace. nerdctl parses "CNI firewall plugin vX.Y.Z" as a
# semantic version and needs 1.7.1 or newer for ingressPolicy "isolated". It ignores the build metadata after the "+".
_GO_RELEASE = "1.9.1"


@dataclass(frozen=True, slots=True)
class Response:
    """The output of a plugin: stdout, exit status 0 or 1, and stderr if CNI_COMMAND is not set.

    `log_line` describes the call for the log of a server, which is written after the caller has the response.
    """

    stdout: str = ""
    status: int = 0
    stderr: str = ""
    log_line: str = ""


def describe_plugin(plugin: str, versions: tuple[str, ...]) -> str:
    """Return the text that a plugin prints without CNI_COMMAND (docs/reference/protocol.md#about-text)."""
    name = f"CNI {plugin} plugin v{_GO_RELEASE}+pycni.{__version__}"
    return f"{name}\nCNI protocol versions supported: {', '.join(versions)}\n"


def handle_call(
    name: str,
    plugin: type[Plugin[Any]],
    env: Mapping[str, str],
    stdin: bytes,
    invoke: Invoke,
    *,
    netns: int | None = None,
    host: int | None = None,
) -> Response:
    """Handle one call of the plugin `name` and return the response. Every failure becomes an error object on stdout.

    `netns` and `host` are descriptors of the network namespace at CNI_NETNS and of the caller's own, if the caller has
    opened them. `invoke` calls delegates and IPAM plugins.
    """
    command, cni_version = env.get("CNI_COMMAND", ""), ""
    if not command:
        return Response(stderr=describe_plugin(name, plugin.versions))
    call_log = _CallLog(name, command, env.get("CNI_CONTAINERID", ""))
    try:
        with call_log:
            if command == "VERSION":
                stdout = version.encode_reply(plugin.versions)
            else:
                request = Request.read(env, stdin, netns=netns, host=host)
                cni_version = request.cni_version if request.cni_version in version.ALL else ""
                document = _run(plugin, request, invoke, conversion.encode_result)
                stdout = "" if document is None else go_json.dumps_indented(document)
    except CniError as failure:
        return Response(failure.to_json(cni_version or version.NEWEST), 1, log_line=str(call_log))
    return Response(stdout, log_line=str(call_log))


def call_in_process(name: str, plugin: type[Plugin[Any]], request: Request, invoke: Invoke) -> VersionedResult | None:
    """Handle a call by another plugin in this process and return the result of ADD. Raises CniError only."""
    call_log = _CallLog(name, request.command, request.container_id)
    try:
        with call_log:
            return _run(plugin, request, invoke, conversion.to_versioned)
    finally:
        log.debug("%s", call_log)


class _CallLog:
    """Context manager around a call: measures its duration, and turns every exception into a CniError.

    str() of it is the line for the log: plugin, verb, container, duration and outcome.
    """

    __slots__ = ("_began", "_ended", "_outcome", "_who")

    def __init__(self, name: str, command: str, container_id: str) -> None:
        self._who = f"{name} {command} {container_id}"
        self._outcome = "ok"
        self._began = self._ended = time.monotonic()

    def __str__(self) -> str:
        return f"{self._who} in {(self._ended - self._began) * 1000:.1f} ms: {self._outcome}"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = time.monotonic()
        if isinstance(error, Exception | SystemExit):
            failure = upgrade_error(error) if is_caused_by_upgrade(error) else CniError.from_exception(error)
            if not isinstance(error, CniError | OSError | ValueError):
                log.error("%s failed unexpectedly", self._who, exc_info=error)
            self._outcome = f"error {failure.code}: {failure}"
            raise failure from None


def _run(plugin: type[Plugin[Any]], request: Request, invoke: Invoke, encode: Callable[[Result, str], T]) -> T | None:
    """Validate and execute the request; return the result of ADD, encoded in the requested version.

    Raises CniError, and whatever the plugin raises.
    """
    version.require(request.command, request.cni_version, plugin.versions)
    netns = request.netns if request.netns_fd is None else request.netns_fd
    if request.command in ("ADD", "DEL") and not request.allow_own_netns and is_own_namespace(netns):
        raise CniError(
            "plugin's netns and netns from CNI_NETNS should not be the same",
            code=Code.INVALID_NETNS,
            details=f"{request.netns} is the network namespace of the host; CNI_NETNS_OVERRIDE=1 allows it",
        )
    if request.command in ("GC", "STATUS"):
        _run_on_network(plugin, request, invoke)
        return None
    return _run_on_attachment(plugin, request, invoke, encode)


def _run_on_network(plugin: type[Plugin[Any]], request: Request, invoke: Invoke) -> None:
    gc = request.command == "GC"
    config, journal = _config(plugin, request, leniently=gc), Journal()
    with Network(config, request, journal, invoke) as cni:
        if not gc:
            plugin().status(cni)
        elif cni.valid_attachments is None:
            log.info("GC without cni.dev/valid-attachments: no attachment is known to be stale, nothing is removed")
        else:
            plugin().gc(cni)
    _raise_failures(journal)


def _run_on_attachment(
    plugin: type[Plugin[Any]], request: Request, invoke: Invoke, encode: Callable[[Result, str], T]
) -> T | None:
    deleting = request.command == "DEL"
    config = _config(plugin, request, leniently=deleting)
    if deleting:
        known = {key: value for key, value in cni_args.parse_leniently(request.args).items() if key in plugin.cni_args}
    else:
        known = cni_args.parse(request.args, plugin.cni_args) if plugin.cni_args else {}
    journal = Journal()
    # The journal is left first, because rollback needs the namespaces open.
    with Attachment(config, request, journal, invoke, known) as cni, journal:
        match request.command:
            case "ADD":
                return encode(_add(plugin, cni), request.cni_version)  # a result that cannot be encoded is rolled back
            case "CHECK":
                plugin().check(cni)
            case _:
                plugin().delete(cni)
    _raise_failures(journal)
    return None


def _add(plugin: type[Plugin[Any]], cni: Attachment[Any]) -> Result:
    """Call ADD. Raises CniError if it returns no Result."""
    result: object = plugin().add(cni)
    if not isinstance(result, Result):
        raise CniError(
            f"{plugin.__module__}.{plugin.__qualname__}.add returned {type(result).__name__}, not a Result",
            details="the plugin must return a pycni.sdk.Result, such as cni.result(...) or cni.required_prev_result",
        )
    return result


def _config(plugin: type[Plugin[Any]], request: Request, *, leniently: bool) -> NetConf:
    """Return the configuration. DEL and GC use the valid part of an invalid one (`leniently`)."""
    if not leniently:
        return plugin.config.read(request.config)
    config, problems = plugin.config.read_leniently(request.config)
    for problem in problems:
        log.warning("%s continues although the configuration is invalid: %s", request.command, problem)
    return config


def _raise_failures(journal: Journal) -> None:
    """Raise the first failure of DEL or GC, with the others in its details."""
    if journal.failures:
        first, *others = journal.failures
        for other in others:
            first.add_note(str(CniError.from_exception(other)))
        raise first
