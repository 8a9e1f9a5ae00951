"""pycni dhcp-daemon."""

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def dhcp_daemon(flags: tuple[str, ...]) -> int:
    r"""Keep the leases of the dhcp plugin until SIGTERM; they survive that. `pycni serve` does it by itself.

    The flags are those of Go's `dhcp daemon`; durations are written 10s or 1m30s.

    \b
      -socketpath PATH     where plugins find the keeper (/run/cni/dhcp.sock)
      -hostprefix PATH     where the host's file system is, for socket and namespaces
      -pidfile PATH        write the process id there
      -broadcast           servers shall broadcast their answers
      -timeout TIME        for one attempt to get a lease (10s)
      -resendmax TIME      the longest pause between two attempts (62s)
      -resendtimeout TIME  for all attempts together (208s)
      -lookevery TIME      how often to look whether interfaces are there (10s)
    """
    from pycni_plugins.dhcp.daemon_main import main

    return main(flags)
