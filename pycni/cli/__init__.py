"""The command pycni, for people: one module per group of commands, imported when one of them is used."""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from pycni import __version__

# By name: where the command is, and what the overview says of it (so that --help imports none of them).
COMMANDS = {
    "add": ("pycni.cli.attach:add", "Attach a network namespace to a network."),
    "check": ("pycni.cli.attach:check", "See whether an attachment is as ADD left it."),
    "del": ("pycni.cli.attach:delete", "Detach a network namespace from a network."),
    "gc": ("pycni.cli.networks:gc", "Detach everything from a network and clean up."),
    "status": ("pycni.cli.networks:status", "Ask the plugins of a network whether they are ready."),
    "version": ("pycni.cli.networks:version", "Show which versions the plugins of a network speak."),
    "list": ("pycni.cli.networks:list_", "Show the networks, their plugins and what is attached."),
    "validate": ("pycni.cli.validate:validate", "Say what is wrong with network configurations."),
    "try": ("pycni.cli.try_:try_", "Live a whole life of a network in a throwaway host."),
    "serve": ("pycni.cli.serve:serve", "Answer the calls of launchers as a resident server."),
    "dhcp-daemon": ("pycni.cli.dhcp_daemon:dhcp_daemon", "Keep DHCP leases, where there is no resident server."),
    "install": ("pycni.cli.install:install", "Put a launcher for every plugin into a directory."),
    "uninstall": ("pycni.cli.install:uninstall", "Take the launchers out again."),
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
@click.option("-i", "--ifname", help="Interface name in the container; may also follow the command.")
@click.option("-v", "--verbose", count=True, help="Say on stderr what is done; twice for every change.")
@click.version_option(__version__, message="pycni %(version)s")
@click.pass_context
def cli(ctx: click.Context, ifname: str | None, verbose: int) -> None:
    """Attach network namespaces to CNI networks, and look after networks and plugins.

    A superset of cnitool: CNI_PATH, NETCONFPATH, CNI_ARGS, CAP_ARGS and CNI_IFNAME mean what they mean there.
    """
    import logging

    logging.basicConfig(level=[logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)], format="%(message)s")
    ctx.obj = {"ifname": ifname}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0, or 1 with nothing on stdout and the reason on stderr (P-548)."""
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
