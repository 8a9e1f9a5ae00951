"""readiness.py SOCKET STATE: check that the network is reported as not ready while STATE is not writable."""

import subprocess
import sys
from functools import partial

from checks import Checks
from cri import Cri, network_is_ready


def main(socket: str, state: str) -> None:
    check, cri = Checks(), Cri(socket)
    check.eventually("the network is ready", partial(network_is_ready, cri))

    def reports_the_cause() -> tuple[object, object]:
        ready, conditions = network_is_ready(cri)
        return not ready and f"{state}" in str(conditions), conditions

    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", state], check=True)
    check.eventually("not ready while host-local cannot write its store, with the cause", reports_the_cause)
    subprocess.run(["umount", state], check=True)
    check.eventually("the network is ready again", partial(network_is_ready, cri))
    check.finish()


main(*sys.argv[1:])
