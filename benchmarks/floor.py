"""Lower bounds: the time to start a process, and the time the kernel needs to attach a container."""

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
    """Time a program that does nothing, and the launcher without a server and without a one-shot executable.

    The launcher then looks for both, and prints an error.
    """
    alone = {"CNI_COMMAND": "ADD", "PYCNI_SOCKET": "/nowhere", "PYCNI_ONESHOT_DIR": "/nowhere"}
    samples: Samples = {}
    for _ in range(rounds):
        for case, program, env in (("exec of /bin/true", "/bin/true", {}), ("launcher alone", str(launcher), alone)):
            samples.setdefault((case, "", "floor"), []).append(_run(program, env))
    return samples


def _run(program: str, env: Mapping[str, str]) -> float:
    """Return the milliseconds from exec to exit."""
    actions = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    started = time.perf_counter()
    os.waitpid(os.posix_spawn(program, [program], env, file_actions=actions), 0)
    return (time.perf_counter() - started) * 1000


def kernel(host: Host, rounds: int) -> Samples:
    """Time the kernel's netlink calls of ADD, CHECK and DEL of a bridge with ipMasq, in a warm process."""
    handle_cache.enable(host.netns.identity)
    samples: Samples = {}
    ipam = host_local(host.state)
    with counted() as spent:  # around all rounds: cached sockets are counted too
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
    """Yield a list that collects the seconds of each `send` on a socket. Netlink does its work within `send`."""
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
