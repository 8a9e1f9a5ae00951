"""Memory, descriptors and threads of the server."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from calls import Chain, Contender
from cases import container, with_port


@dataclass(frozen=True)
class Footprint:
    """Totals over the processes of a server."""

    megabytes: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        """Read the totals from /proc. Memory is resident memory; pages shared by the processes are counted once."""
        processes = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        kilobytes = sum(_proportional(process) for process in processes)
        descriptors, threads = (
            sum(1 for process in processes for _ in Path(f"/proc/{process}/{kind}").iterdir())
            for kind in ("fd", "task")
        )
        return cls(kilobytes / 1024, descriptors, threads)

    def __str__(self) -> str:
        return f"{self.megabytes:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def _proportional(pid: int) -> int:
    """Return the proportional set size in kilobytes."""
    _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["Pss"].split()[0])


def run_cycles(chain: Chain, contender: Contender, count: int) -> None:
    """Run `count` cycles of ADD and DEL, four in parallel."""

    def one(number: int) -> None:
        own = with_port(chain, 20000 + number % 4000)
        with container(contender.host) as made:
            _, result = own.add(contender, made.path, made.id)
            own.delete(contender, made.path, made.id, result)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))
    time.sleep(1)  # until the kernel has released the last links
