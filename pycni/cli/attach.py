"""The commands add, check and del: one network namespace and one network."""

from pathlib import Path
from typing import Any

import click

from pycni.cli import netns as namespaces
from pycni.cli import options, show
from pycni.protocol import go_json
from pycni.runtime import NetworkConfig, Runtime, RuntimeConf, find_network

_of_one_attachment = options.together(
    click.argument("network"),
    click.argument("netns"),
    options.ifname,
    options.arg,
    options.port,
    options.capability,
    options.container_id,
    options.path,
    options.conf_dir,
    options.cache_dir,
    options.timeout,
    options.cni_args,
    options.cap_args,
)


@click.command()
@_of_one_attachment
@click.option("--create-netns", is_flag=True, help="Create the network namespace if it does not exist.")
@click.option("--no-undo", is_flag=True, help="Do not roll back a failed ADD, for debugging.")
def add(*, create_netns: bool, no_undo: bool, **given: Any) -> None:
    """Attach the namespace NETNS (a path, or a name in /run/netns) to NETWORK.

    Print the result as JSON; on a terminal, as a tree.
    """
    network = find_network(given["conf_dir"], given["network"])
    parameters = _parameters(given)
    namespaces.ensure(given["netns"], create=create_netns)
    result = _runtime(given, undo_failed_add=not no_undo).add_network_list(network, parameters)
    if result is None:
        return
    document = result.to_document(result.cni_version)
    if show.on_terminal():
        show.result(network, parameters, result)
    else:
        click.echo(go_json.dumps_indented(document).encode(), nl=False)


@click.command()
@_of_one_attachment
def check(**given: Any) -> None:
    """Verify that the attachment of NETNS to NETWORK is as ADD left it."""
    network, parameters, runtime = _prepared(given)
    runtime.check_network_list(network, parameters)
    show.done(f"{parameters.ifname} of {given['netns']} on {network.name} is as ADD left it")


@click.command("del")
@_of_one_attachment
def delete(**given: Any) -> None:
    """Detach NETNS from NETWORK. The network namespace need not exist any more."""
    network, parameters, runtime = _prepared(given)
    runtime.delete_network_list(network, parameters)
    show.done(f"{parameters.ifname} of {given['netns']} is detached from {network.name}")


def _prepared(given: dict[str, Any]) -> tuple[NetworkConfig, RuntimeConf, Runtime]:
    network = find_network(given["conf_dir"], given["network"])
    return network, _parameters(given), _runtime(given)


def _parameters(given: dict[str, Any]) -> RuntimeConf:
    capability_args = options.capability_args_of(given["cap_args"], given["capabilities"], given["ports"])
    args = options.cni_args_of(given["cni_args"], given["args"])
    context = click.get_current_context()
    after_command = context.get_parameter_source("ifname") is click.core.ParameterSource.COMMANDLINE
    before_command = "" if after_command else context.obj["ifname"]  # pycni -i NAME add
    path: Path = namespaces.resolve(given["netns"])
    return RuntimeConf(
        container_id=given["container_id"] or namespaces.container_id(path),
        netns=str(path),
        ifname=before_command or given["ifname"] or "eth0",
        args=args,
        capability_args=capability_args,
    )


def _runtime(given: dict[str, Any], *, undo_failed_add: bool = True) -> Runtime:
    return Runtime(
        options.directories(given["path"]),
        cache_dir=given["cache_dir"],
        deadline=given["timeout"],
        undo_failed_add=undo_failed_add,
        in_process=click.get_current_context().obj["verbose"] > 1,  # -vv: the log of this process contains the changes
    )
