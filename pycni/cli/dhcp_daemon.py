"""The command dhcp-daemon: the DHCP lease daemon as a process of its own."""

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def dhcp_daemon(flags: tuple[str, ...]) -> int:
    """Run the DHCP lease daemon until SIGTERM. Leases survive a restart. `pycni serve` contains the daemon.

    The flags are those of Go's `dhcp daemon`. Durations are written as 10s or 1m30s.

    \b
      -socketpath PATH     socket for the plugin (/run/cni/dhcp.sock)
      -hostprefix PATH     prefix of the socket and of network namespaces, for a container with the host's files
      -pidfile PATH        file for the process id
      -broadcast           ask servers to broadcast their replies
      -timeout TIME        time of one attempt to get a lease (10s)
      -resendmax TIME      longest pause between two attempts (62s)
      -resendtimeout TIME  time of all attempts together (208s)
      -lookevery TIME      interval of checks whether interfaces still exist (10s)
    """  # noqa: D301 - click reads the backspace as "do not wrap this paragraph"
    from pycni_plugins.dhcp.daemon_main import main

    return main(flags)
