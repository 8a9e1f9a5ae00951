"""The command `pycni`. Each group of commands is a module that is imported when one of its commands runs."""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pycni import __version__

# Command name: module and function, and the summary for --help, which therefore imports no module.
COMMANDS = {
    "add": ("pycni.cli.attach:add", "Attach a network namespace to a network."),
    "check": ("pycni.cli.attach:check", "Verify that an attachment is as ADD left it."),
    "del": ("pycni.cli.attach:delete", "Detach a network namespace from a network."),
    "gc": ("pycni.cli.networks:gc", "Delete all attachments of a network."),
    "status": ("pycni.cli.networks:status", "Check whether the plugins of a network are ready for ADD."),
    "version": ("pycni.cli.networks:version", "Show the CNI versions that the plugins of a network support."),
    "list": ("pycni.cli.networks:list_", "List networks, their plugins and their attachments."),
    "validate": ("pycni.cli.validate:validate", "Validate network configurations."),
    "try": ("pycni.cli.try_:try_", "Run ADD, CHECK and DEL of a network in a throwaway network namespace."),
    "serve": ("pycni.cli.serve:serve", "Run the resident server."),
    "server": ("pycni.cli.server:server", "Show the resident servers, or stop them."),
    "dhcp-daemon": (
        "pycni.cli.dhcp_daemon:dhcp_daemon",
        "Run the DHCP lease daemon without the resident server.",
    ),
    "install": ("pycni.cli.install:install", "Install all plugins into a plugin directory."),
    "uninstall": ("pycni.cli.install:uninstall", "Remove the plugins and restore the files that they replaced."),
}


class _Commands(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("-i", "--ifname", help="Interface name in the container; also accepted after the command.")
@click.option("-v", "--verbose", count=True, help="Log to stderr; -vv logs every change.")
@click.version_option(__version__, message="pycni %(version)s")
@click.pass_context
def cli(ctx: click.Context, ifname: str | None, verbose: int) -> None:
    """Attach network namespaces to CNI networks, and manage networks and plugins.

    Compatible with cnitool: CNI_PATH, NETCONFPATH, CNI_ARGS, CAP_ARGS and CNI_IFNAME have the same meaning.
    """
    import logging

    logging.basicConfig(level=[logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)], format="%(message)s")
    ctx.obj = {"ifname": ifname, "verbose": verbose}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with 0, or with 1, an empty stdout and the reason on stderr."""
    from pycni.protocol.errors import CniError

    try:
        status = cli.main(arguments, prog_name="pycni", standalone_mode=False)
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo("\n".join(filter(None, (f"Error: {error.format_message()}", usage))), err=True)
        status = 1
    except CniError as error:
        from pycni.cli import show

        show.failure(error)
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
