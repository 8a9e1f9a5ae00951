"""readiness.py SOCKET STATE: what kubelet is told of the network while plugins can write below STATE, and while not."""

import subprocess
import sys
from functools import partial

from checks import Checks
from cri import Cri, network_is_ready


def main(socket: str, state: str) -> None:
    check, cri = Checks(), Cri(socket)
    check.eventually("the network is ready", partial(network_is_ready, cri))

    def tells_the_cause() -> tuple[object, object]:
        ready, conditions = network_is_ready(cri)
        return not ready and f"{state}" in str(conditions), conditions

    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", state], check=True)
    check.eventually("where host-local can write nothing it is not, and the cause is told", tells_the_cause)
    subprocess.run(["umount", state], check=True)
    check.eventually("it is ready again", partial(network_is_ready, cri))
    check.finish()


main(*sys.argv[1:])
