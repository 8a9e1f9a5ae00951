"""The commands gc, status, version and list: operations on whole networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pycni.cli import options, show
from pycni.protocol import go_json
from pycni.protocol.errors import CniError
from pycni.runtime import CachedAttachment, NetworkConfig, PluginConfig, Runtime, all_networks, find_network

if TYPE_CHECKING:
    from rich.text import Text

_places = options.together(options.path, options.conf_dir, options.cache_dir, options.timeout)
_of_one_network = options.together(
    click.argument("network"),
    click.argument("netns", required=False),  # cnitool requires it and ignores it
    options.ifname,
    _places,
)


@click.command()
@_of_one_network
def gc(**given: Any) -> None:
    """Delete all attachments of NETWORK, and call GC of its plugins.

    As with cnitool, every cached attachment is deleted, whether or not its container is alive. The plugins get no list
    of valid attachments, so they remove nothing that is not in the cache.
    """
    network = find_network(given["conf_dir"], given["network"])
    _runtime(given).gc_network_list(network, None)
    show.done(f"all attachments of {network.name} are deleted")


@click.command()
@_of_one_network
def status(**given: Any) -> None:
    """Check whether every plugin of NETWORK is ready for ADD."""
    network = find_network(given["conf_dir"], given["network"])
    _runtime(given).status_network_list(network)
    show.done(f"{network.name} is ready")


@click.command()
@_of_one_network
def version(**given: Any) -> None:
    """Show the CNI versions that the plugins of NETWORK support; fail if one does not support the network's."""
    network = find_network(given["conf_dir"], given["network"])
    runtime = _runtime(given)
    runtime.validate_network_list(network)
    spoken = {plugin.type: runtime.plugin_versions(plugin.type) for plugin in network.plugins}
    if not show.on_terminal():
        document = {"cniVersion": network.cni_version, "name": network.name}
        click.echo(go_json.dumps_indented({**document, "plugins": {key: list(spoken[key]) for key in spoken}}).encode())
        return
    from rich.table import Table

    table = Table(
        "plugin", "executable", "versions", title=f"{network.name}  {network.cni_version}", title_justify="left"
    )
    for name, versions in spoken.items():
        table.add_row(name, _executable(runtime, name), "  ".join(versions))
    show.console().print(table)


@click.command("list")
@_places
def list_(**given: Any) -> None:
    """List the networks in --conf-dir with the executable of each plugin and the attachments."""
    runtime, entries = _runtime(given), []
    attached = runtime.cached_attachments()
    for found in all_networks(given["conf_dir"]):
        entry: dict[str, Any] = {"file": str(found.file)}
        if found.network is None:
            entry["error"] = str(found.error)
        else:
            entry |= _network_entry(runtime, found.network, attached)
        entries.append(entry)
    if show.on_terminal():
        _show_entries(given["conf_dir"], entries)
    else:
        click.echo(go_json.dumps_indented(entries).encode())


def _network_entry(runtime: Runtime, network: NetworkConfig, attached: list[CachedAttachment]) -> dict[str, Any]:
    return {
        "name": network.name,
        "cniVersion": network.cni_version,
        "plugins": [_plugin_entry(runtime, plugin) for plugin in network.plugins],
        "attachments": [
            {
                "containerID": entry.parameters.container_id,
                "ifname": entry.parameters.ifname,
                "netns": entry.parameters.netns,
            }
            for entry in attached
            if entry.network == network.name
        ],
    }


def _plugin_entry(runtime: Runtime, plugin: PluginConfig) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": plugin.type, "executable": _executable(runtime, plugin.type)}
    if plugin.ipam:
        entry["ipam"] = {"type": plugin.ipam, "executable": _executable(runtime, plugin.ipam)}
    return entry


def _show_entries(directory: Path, entries: list[dict[str, Any]]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(str(directory), style="dim"))
    for entry in entries:
        if "error" in entry:
            tree.add(Text.assemble(("✗ ", "red"), entry["file"])).add(Text(entry["error"]))
            continue
        branch = tree.add(
            Text.assemble((entry["name"], "bold"), f"  {entry['cniVersion']}  ", (Path(entry["file"]).name, "dim"))
        )
        for plugin in entry["plugins"]:
            twig = branch.add(_called(plugin))
            if "ipam" in plugin:
                twig.add(_called(plugin["ipam"]))
        for one in entry["attachments"]:
            branch.add(Text.assemble((one["ifname"], "green"), f"  {one['containerID']}  ", (one["netns"], "dim")))
    if not entries:
        tree.add(Text("no network configurations", style="yellow"))
    show.console().print(tree)


def _called(plugin: dict[str, Any]) -> "Text":
    from rich.text import Text

    style = "red" if plugin["executable"].startswith("missing") else "dim"
    return Text.assemble((plugin["type"], "cyan"), "  ", (plugin["executable"], style))


def _executable(runtime: Runtime, plugin: str) -> str:
    try:
        return runtime.plugins.find(plugin) or "(in process)"
    except CniError as error:
        return f"missing: {error}"


def _runtime(given: dict[str, Any]) -> Runtime:
    return Runtime(options.directories(given["path"]), cache_dir=given["cache_dir"], deadline=given["timeout"])
