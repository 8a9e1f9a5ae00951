"""What the server takes: memory, descriptors and threads, at rest and after many lives."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from calls import Chain, Contender
from cases import container, with_port


@dataclass(frozen=True)
class Footprint:
    """Of one process."""

    megabytes: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        """As /proc tells it; the memory is what is resident."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(int(status["VmRSS"].split()[0]) / 1024, descriptors, int(status["Threads"]))

    def __str__(self) -> str:
        return f"{self.megabytes:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def live(chain: Chain, contender: Contender, count: int) -> None:
    """ADD and DEL, four at a time."""

    def one(number: int) -> None:
        own = with_port(chain, 20000 + number % 4000)
        with container(contender.host) as made:
            _, result = own.add(contender, made.path, made.id)
            own.delete(contender, made.path, made.id, result)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))
