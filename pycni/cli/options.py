"""What the commands are given: cnitool's variables, and options that people can read."""

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
    help="Where plugins are, directories joined by colons.",
)
conf_dir = click.option(
    "--conf-dir",
    envvar="NETCONFPATH",
    default="/etc/cni/net.d",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Where network configurations are.",
)
cache_dir = click.option(
    "--cache-dir",
    default="/var/lib/cni",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where attachments are remembered.",
)
timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=180.0, show_default=True,
    help="How many seconds each plugin has.",
)  # fmt: skip
ifname = click.option(
    "-i", "--ifname", envvar="CNI_IFNAME", show_envvar=True, help="Interface name in the container.  [default: eth0]"
)
container_id = click.option("--container-id", help="Container id.  [default: made of the namespace's path]")
cni_args = click.option("cni_args", "--cni-args", envvar="CNI_ARGS", hidden=True, default="")
cap_args = click.option("cap_args", "--cap-args", envvar="CAP_ARGS", hidden=True, default="")
arg = click.option("args", "--arg", multiple=True, metavar="KEY=VALUE", help="A pair for CNI_ARGS; may be repeated.")
capability = click.option(
    "capabilities", "--cap", multiple=True, metavar="NAME=JSON", help="A capability argument; may be repeated."
)
port = click.option(
    "ports", "--port", multiple=True, metavar="[IP:]HOST:CONTAINER[/PROTO]", help="A port mapping; may be repeated."
)


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """The options as one decorator; --help shows them in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def directories(text: str) -> list[str]:
    """The directories of a search path."""
    return text.split(":") if text else []


def cni_args_of(variable: str, pairs: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """CNI_ARGS and the pairs of --arg after it; both parts of a pair are wanted (P-544). Raises UsageError."""
    result = []
    for text in (*(variable.split(";") if variable else ()), *pairs):
        key, _, value = text.partition("=")
        if not key or not value or "=" in value or ";" in value:
            raise click.UsageError(f'invalid CNI_ARGS pair "{text}": KEY=VALUE is wanted')
        result.append((key, value))
    return tuple(result)


def capability_args_of(variable: str, capabilities: tuple[str, ...], ports: tuple[str, ...]) -> dict[str, Any]:
    """CAP_ARGS, with what --cap and --port say instead (P-543). Raises UsageError."""
    result = _json_of("CAP_ARGS", variable) if variable else {}
    if result is None:
        result = {}
    if not isinstance(result, dict):
        raise click.UsageError("CAP_ARGS is a JSON object of capability arguments")
    for text in capabilities:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f'invalid --cap "{text}": NAME=JSON is wanted')
        result[name] = _json_of(f"--cap {name}", value)
    if ports:
        result["portMappings"] = [port_mapping(text) for text in ports]
    return result


def port_mapping(text: str) -> dict[str, Any]:
    """One --port as an entry of portMappings. Raises UsageError."""
    match = _PORT.fullmatch(text)
    if not match:
        raise click.UsageError(f'invalid --port "{text}": [IP:]HOST:CONTAINER[/PROTO] is wanted, as in 8080:80/tcp')
    host, container = int(match["host"]), int(match["container"])
    if not (0 < host < 65536 and 0 < container < 65536):
        raise click.UsageError(f'invalid --port "{text}": ports are 1 to 65535')
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
        raise click.UsageError(f"{what} is no JSON: {error}") from None
