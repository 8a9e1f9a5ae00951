"""The cases: what each one sets up and times. The contenders alternate within one run."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

from calls import VERSION, Chain, Contender, call
from pycni.testing import Container, Host

Samples = dict[tuple[str, str, str], list[float]]  # case, verb, contender: milliseconds

PORTS = {
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"}]}
}


def host_local(place: Path, *, subnet: str = "10.88.0.0/16") -> dict[str, Any]:
    """Return the `ipam` section."""
    return {"type": "host-local", "subnet": subnet, "dataDir": str(place / "networks")}


def chains(place: Path) -> Mapping[str, Chain]:
    """Return the chains by case name."""
    ipam = host_local(place)
    bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipam": ipam}
    return {
        "loopback": Chain({"type": "loopback"}),
        "host-local": Chain({"type": "host-local", "ipam": ipam}),
        "bridge": Chain(bridge),
        "ptp": Chain({"type": "ptp", "ipam": ipam}),
        "chain": Chain({**bridge, "ipMasq": True}, {"type": "portmap", **PORTS}),
    }


def neighbours(place: Path) -> Mapping[str, Chain]:
    """Return the chains that attach containers beforehand. Those on the same bridge receive every broadcast."""
    bridge = {"type": "bridge", "isDefaultGateway": True, "ipMasq": True}
    elsewhere = {**bridge, "bridge": "cni1", "ipam": host_local(place, subnet="10.89.0.0/16")}
    return {
        "on another bridge": Chain(elsewhere, {"type": "portmap", **PORTS}, name="other"),
        "on the same bridge": chains(place)["chain"],
    }


def cycles(case: str, chains: Chain | Mapping[str, Chain], who: Sequence[Contender], rounds: int) -> Samples:
    """Time ADD, CHECK and DEL of one container at a time. The first round creates shared state and is not counted.

    `chains` is one chain, or one for each contender by its name.
    """
    samples: Samples = {}
    for number in range(rounds + 1):
        for contender in shuffled(who, number):
            chain = chains if isinstance(chains, Chain) else chains[contender.name]
            with container(contender.host) as one:
                add, result = chain.add(contender, one.path, one.id)
                check = chain.check(contender, one.path, one.id, result)
                delete = chain.delete(contender, one.path, one.id, result)
            if number:
                for verb, elapsed in (("ADD", add), ("CHECK", check), ("DEL", delete)):
                    samples.setdefault((case, verb, contender.name), []).append(elapsed)
    return samples


def versions(who: Sequence[Contender], rounds: int) -> Samples:
    """Time VERSION."""
    samples: Samples = {}
    for number in range(rounds + 1):
        for contender in shuffled(who, number):
            elapsed, _ = call(contender, "bridge", "VERSION", {"cniVersion": VERSION}, "", "")
            if number:
                samples.setdefault(("any plugin", "VERSION", contender.name), []).append(elapsed)
    return samples


def bursts(chain: Chain, who: Sequence[Contender], *, size: int, rounds: int) -> Samples:
    """Time the ADDs of many containers, ten in parallel, then their DELs. Each has its own host port."""
    samples: Samples = {}
    for number in range(rounds):
        for contender in shuffled(who, number):
            with Crowd(chain, contender, size, at_once=10) as crowd:
                started = time.perf_counter()
                crowd.add()
                added = time.perf_counter()
                crowd.delete()
                deleted = time.perf_counter()
            case = f"burst of {size}"
            samples.setdefault((case, "all ADDs", contender.name), []).append((added - started) * 1000)
            samples.setdefault((case, "all DELs", contender.name), []).append((deleted - added) * 1000)
    return samples


@contextmanager
def foreign_rules(who: Sequence[Contender], count: int) -> Iterator[None]:
    """Add rules to table nat of iptables within the block, as many as kube-proxy may have."""
    rules = "".join(
        f"-A FOREIGN -d 172.20.{i // 250}.{i % 250} -p tcp --dport {i % 60000 + 1} -j RETURN\n" for i in range(count)
    )
    script = f"*nat\n:FOREIGN - [0:0]\n{rules}COMMIT\n"
    with NamedTemporaryFile("w", suffix=".rules") as file:
        file.write(script)
        file.flush()
        for contender in who:
            contender.host.run(f"iptables-restore --noflush < {file.name}")
    yield
    for contender in who:
        contender.host.run("iptables -t nat -F FOREIGN && iptables -t nat -X FOREIGN")


@contextmanager
def attached(chain: Chain, contender: Contender, count: int) -> Iterator[None]:
    """Attach containers within the block."""
    with Crowd(chain, contender, count, at_once=8) as crowd:
        crowd.add()
        yield
        crowd.delete()


class Crowd:
    """Many containers on one network, each with its own host port; `at_once` are attached or detached in parallel."""

    def __init__(self, chain: Chain, contender: Contender, size: int, *, at_once: int) -> None:
        self._contender = contender
        self._chains = [with_port(chain, 20000 + index) for index in range(size)]
        self._containers = [Container(contender.host) for _ in range(size)]
        self._results: list[Any] = []
        self._pool = ThreadPoolExecutor(at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for one in self._containers:
            one.close()

    def add(self) -> None:
        """Attach all containers."""
        self._results = list(self._pool.map(self._add, self._chains, self._containers))

    def delete(self) -> None:
        """Detach all containers."""
        list(self._pool.map(self._delete, self._chains, self._containers, self._results))

    def _add(self, chain: Chain, one: Container) -> Any:
        return chain.add(self._contender, one.path, one.id)[1]

    def _delete(self, chain: Chain, one: Container, result: Any) -> None:
        chain.delete(self._contender, one.path, one.id, result)


def with_port(chain: Chain, port: int) -> Chain:
    """Return the chain with another host port."""
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"}
    plugins = [
        {**p, "runtimeConfig": {"portMappings": [mapping]}} if "runtimeConfig" in p else p for p in chain.plugins
    ]
    return Chain(*plugins, name=chain.name)


def shuffled(who: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Return the contenders in a different order for each round, since each one affects the caches of the next."""
    return random.Random(number).sample(who, len(who))


@contextmanager
def container(host: Host) -> Iterator[Container]:
    """Yield a container that exists within the block."""
    made = Container(host)
    try:
        yield made
    finally:
        made.close()
