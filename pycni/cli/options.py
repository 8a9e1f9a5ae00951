"""Options of the commands, and cnitool's environment variables for them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pycni.protocol import go_json
from pycni.protocol.address import parse_ip

F = TypeVar("F", bound=Callable[..., Any])

_PORT = re.compile(
    r"(?:(?P<ip>[0-9.]+|\[[0-9a-fA-F:.]+\]):)?(?P<host>\d{1,5}):(?P<container>\d{1,5})(?:/(?P<proto>\w+))?"
)

path = click.option(
    "--path",
    envvar="CNI_PATH",
    default="/opt/cni/bin",
    show_default=True,
    show_envvar=True,
    help="Plugin directories, separated by colons.",
)
conf_dir = click.option(
    "--conf-dir",
    envvar="NETCONFPATH",
    default="/etc/cni/net.d",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Directory of network configurations.",
)
cache_dir = click.option(
    "--cache-dir",
    default="/var/lib/cni",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Directory of the attachment cache.",
)
timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=180.0, show_default=True,
    help="Deadline of each plugin call in seconds.",
)  # fmt: skip
ifname = click.option(
    "-i", "--ifname", envvar="CNI_IFNAME", show_envvar=True, help="Interface name in the container.  [default: eth0]"
)
container_id = click.option("--container-id", help="Container id.  [default: derived from the path of NETNS]")
cni_args = click.option("cni_args", "--cni-args", envvar="CNI_ARGS", hidden=True, default="")
cap_args = click.option("cap_args", "--cap-args", envvar="CAP_ARGS", hidden=True, default="")
arg = click.option("args", "--arg", multiple=True, metavar="KEY=VALUE", help="A pair of CNI_ARGS; repeatable.")
capability = click.option(
    "capabilities", "--cap", multiple=True, metavar="NAME=JSON", help="A capability argument; repeatable."
)
port = click.option(
    "ports", "--port", multiple=True, metavar="[IP:]HOST:CONTAINER[/PROTO]", help="A port mapping; repeatable."
)


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Combine options into one decorator; --help lists them in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def directories(text: str) -> list[str]:
    """Split a search path into directories."""
    return text.split(":") if text else []


def cni_args_of(variable: str, pairs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Parse CNI_ARGS, and append the pairs of --arg. Raise UsageError for an incomplete pair, as cnitool does."""
    result = []
    for text in (*(variable.split(";") if variable else ()), *pairs):
        key, _, value = text.partition("=")
        if not key or not value or "=" in value or ";" in value:
            raise click.UsageError(f'invalid CNI_ARGS pair "{text}": must be KEY=VALUE')
        result.append((key, value))
    return tuple(result)


def capability_args_of(variable: str, capabilities: tuple[str, ...], ports: tuple[str, ...]) -> dict[str, Any]:
    """Parse CAP_ARGS; --cap and --port override its members. Raise UsageError."""
    result = _json_of("CAP_ARGS", variable) if variable else {}
    if result is None:
        result = {}
    if not isinstance(result, dict):
        raise click.UsageError("CAP_ARGS must be a JSON object of capability arguments")
    for text in capabilities:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f'invalid --cap "{text}": must be NAME=JSON')
        result[name] = _json_of(f"--cap {name}", value)
    if ports:
        result["portMappings"] = [port_mapping(text) for text in ports]
    return result


def port_mapping(text: str) -> dict[str, Any]:
    """Parse one --port into an entry of portMappings. Raise UsageError."""
    match = _PORT.fullmatch(text)
    if not match:
        raise click.UsageError(f'invalid --port "{text}": must be [IP:]HOST:CONTAINER[/PROTO], for example 8080:80/tcp')
    host, container = int(match["host"]), int(match["container"])
    if not (0 < host < 65536 and 0 < container < 65536):
        raise click.UsageError(f'invalid --port "{text}": a port must be between 1 and 65535')
    mapping: dict[str, Any] = {"hostPort": host, "containerPort": container}
    mapping["protocol"] = (match["proto"] or "tcp").lower()
    if match["ip"]:
        try:
            mapping["hostIP"] = str(parse_ip(match["ip"].strip("[]")))
        except ValueError as error:
            raise click.UsageError(f'invalid --port "{text}": {error}') from None
    return mapping


def _json_of(what: str, text: str) -> Any:
    try:
        return go_json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{what} is not valid JSON: {error}") from None
