"""pycni dhcp-daemon."""

import click


@click.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def dhcp_daemon(flags: tuple[str, ...]) -> int:
    """Keep the leases of the dhcp plugin, as Go's `dhcp daemon` does, with its flags: see `pycni dhcp-daemon -help`.

    The resident server (`pycni serve`) does it by itself.
    """
    from pycni_plugins.dhcp.daemon import main

    return main(flags)
