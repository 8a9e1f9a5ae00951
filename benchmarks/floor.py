"""What nobody can do without: starting a process, and the kernel's own work for a container."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cases import Samples, container, host_local
from pycni.kernel.netns import handle_cache
from pycni.testing import Host, PluginRunner


def processes(launcher: Path, rounds: int) -> Samples:
    """From exec to exit of a program that does nothing, and of the launcher where there is nobody to hand its call to.

    The latter looks for the server and for the one-shot, and prints that there are none.
    """
    alone = {"CNI_COMMAND": "ADD", "PYCNI_SOCKET": "/nowhere", "PYCNI_ONESHOT_DIR": "/nowhere"}
    samples: Samples = {}
    for _ in range(rounds):
        for case, program, env in (("exec of /bin/true", "/bin/true", {}), ("launcher alone", str(launcher), alone)):
            samples.setdefault((case, "", "floor"), []).append(_run(program, env))
    return samples


def _run(program: str, env: Mapping[str, str]) -> float:
    """Milliseconds from its start to its end."""
    actions = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    started = time.perf_counter()
    os.waitpid(os.posix_spawn(program, [program], env, file_actions=actions), 0)
    return (time.perf_counter() - started) * 1000


def kernel(host: Host, rounds: int) -> Samples:
    """The time within the kernel's netlink for the life of a bridge with ipMasq, in a warm process."""
    handle_cache.enable(host.netns.identity)
    samples: Samples = {}
    ipam = host_local(host.state)
    with counted() as spent:  # for all rounds: what is kept open counts in each
        for number in range(rounds + 1):
            with container(host) as one:
                life = PluginRunner("bridge", one, bridge="cni0", isDefaultGateway=True, ipMasq=True, ipam=ipam)
                for verb, step in (("ADD", life.add), ("CHECK", life.check), ("DEL", life.delete)):
                    spent.clear()
                    step()
                    if number:
                        key = ("kernel: bridge + ipMasq", verb, "floor")
                        samples.setdefault(key, []).append(sum(spent) * 1000)
    return samples


@contextmanager
def counted() -> Iterator[list[float]]:
    """The seconds of each call into the kernel's netlink, which does its work before it returns."""
    spent: list[float] = []

    class Counted(socket.socket):
        def send(self, *args: Any) -> int:
            started = time.perf_counter()
            try:
                return super().send(*args)
            finally:
                spent.append(time.perf_counter() - started)

    with patch.object(socket, "socket", Counted):
        yield spent
