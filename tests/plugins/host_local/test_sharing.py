"""The Go plugin and pycni's host-local use one store at the same time."""

import os
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.host_local.ranges import Range
from pycni_plugins.host_local.store import AddressStore

from pycni.protocol.errors import CniError
from pycni.testing import wait_for

Call = Callable[..., Any]
DUAL = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}


def addresses(result: dict[str, Any]) -> list[str]:
    return [ip["address"] for ip in result["ips"]]


def reservations(store: Path) -> dict[str, str]:
    return {file.name: file.read_bytes().decode() for file in store.iterdir() if not file.name.startswith("l")}


def test_both_plugins_continue_from_the_last_reserved_address(
    host_local: Call, go_host_local: Call, store: Path
) -> None:
    first, second = host_local, go_host_local
    for i in range(2, 12):
        assert addresses(first("ADD", f"c{i}", ipam=DUAL)) == [f"10.1.0.{i}/24", f"fd00:1::{i:x}/64"]
        first, second = second, first
    assert len(reservations(store)) == 20


@pytest.mark.usefixtures("go_plugins")
@pytest.mark.parametrize("adder", ["host_local", "go_host_local"])
def test_each_plugin_respects_the_reservations_of_the_other(
    adder: str, request: pytest.FixtureRequest, store: Path
) -> None:
    adding = request.getfixturevalue(adder)
    other = request.getfixturevalue({"host_local": "go_host_local", "go_host_local": "host_local"}[adder])
    result = adding("ADD", "c1", ipam=DUAL)
    other("ADD", "c2", ipam=DUAL)
    other("CHECK", "c1", ipam=DUAL, cniVersion="1.0.0", prevResult={**result, "cniVersion": "1.0.0"})
    with pytest.raises(CniError, match=r"10\.1\.0\.2 has been allocated to c1, duplicate allocation is not allowed"):
        other("ADD", "c1", ipam=DUAL)
    with pytest.raises(CniError, match=r"requested IP address 10\.1\.0\.2 is not available"):
        other("ADD", "c3", ipam=DUAL, cni_args="IP=10.1.0.2")
    other("DEL", "c1", ipam=DUAL)
    assert set(reservations(store).values()) == {"c2\r\neth0"}
    with pytest.raises(CniError, match="Failed to find address added by container c1"):
        adding("CHECK", "c1", ipam=DUAL, cniVersion="1.0.0", prevResult={**result, "cniVersion": "1.0.0"})
    assert addresses(adding("ADD", "c1", ipam=DUAL)) == ["10.1.0.4/24", "fd00:1::4/64"]


def test_stale_owner_index_is_detected_after_a_del_by_the_go_plugin(
    host_local: Call, go_host_local: Call, data_dir: Path
) -> None:
    host_local("ADD", "c1", ipam=DUAL)
    cache = data_dir / ".mynet.owners"
    before = cache.read_bytes()
    assert b"\0c1\r\neth0\t10.1.0.2\0c1\r\neth0\tfd00:1::2\0" in before
    go_host_local("DEL", "c1", ipam=DUAL)
    assert cache.read_bytes() == before, "the index is out of date"
    host_local("ADD", "c1", ipam=DUAL)
    assert b"\0c1\r\neth0\t10.1.0.3\0c1\r\neth0\tfd00:1::3\0" in cache.read_bytes()
    assert b"10.1.0.2" not in cache.read_bytes()


def test_concurrent_adds_by_both_plugins_reserve_distinct_addresses(
    host_local: Call, go_host_local: Call, store: Path
) -> None:
    failures: list[BaseException] = []

    def add(call: Call, container_id: str) -> None:
        try:
            call("ADD", container_id, ipam=DUAL)
        except BaseException as error:  # noqa: BLE001 - the test looks at the failure of a thread
            failures.append(error)

    calls = [(host_local if i % 2 else go_host_local, f"c{i}") for i in range(32)]
    threads = [threading.Thread(target=add, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(reservations(store).values()) == sorted(2 * [f"c{i}\r\neth0" for i in range(32)])
    for call, container_id in calls:
        other = go_host_local if call is host_local else host_local
        other("DEL", container_id, ipam=DUAL)
    assert reservations(store) == {}


RANGES: dict[str, list[dict[str, str]]] = {
    "tiny": [{"subnet": "10.1.0.0/29"}],
    "gateway inside": [{"subnet": "10.1.0.0/29", "gateway": "10.1.0.4"}],
    "gateway outside": [{"subnet": "10.1.0.0/29", "gateway": "10.9.0.1", "rangeEnd": "10.1.0.3"}],
    "network and broadcast": [{"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.3"}],
    "two ranges": [{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/29", "rangeStart": "10.2.0.3"}],
    "three of one subnet": [
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.10"},
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.2"},
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.200", "rangeEnd": "10.1.0.200"},
    ],
    "IPv6": [{"subnet": "fd00::/125", "rangeEnd": "fd00::5"}],
}
EVERYDAY = ("gateway inside", "three of one subnet", "IPv6")


@pytest.mark.parametrize(
    "name", [name if name in EVERYDAY else pytest.param(name, marks=pytest.mark.exhaustive) for name in RANGES]
)
def test_random_sequences_of_calls_have_the_same_effect_with_both_plugins(
    name: str, host_local: Call, go_host_local: Call, data_dir: Path
) -> None:
    """Send the same sixty ADDs and DELs to both plugins, each with its own store.

    Results, errors and files are the same.
    """
    events = random.Random(name)
    ranges = [Range.parse(r["subnet"], r.get("rangeStart", ""), r.get("rangeEnd", "")) for r in RANGES[name]]
    requestable = [str(end) for range_ in ranges for end in (range_.start, range_.end)]
    for _ in range(60):
        command = events.choice(["ADD", "ADD", "ADD", "DEL"])
        container_id, ifname = f"c{events.randrange(5)}", events.choice(["eth0", "eth0", "net1"])
        cni_args = f"IP={events.choice(requestable)}" if command == "ADD" and events.random() < 0.2 else ""
        outcomes = []
        for call, directory in ((host_local, "pycni"), (go_host_local, "go")):
            ipam = {"ranges": [RANGES[name]], "dataDir": str(data_dir / directory)}
            try:
                result = call(command, container_id, ifname=ifname, cni_args=cni_args, ipam=ipam, cniVersion="1.0.0")
                outcomes.append(result and result["ips"])
            except CniError as error:
                outcomes.append(error.msg)
        assert outcomes[0] == outcomes[1], (command, container_id, ifname, cni_args)
        pycni_files, go_files = (
            {file.name: file.read_bytes() for file in directory.iterdir()} if directory.exists() else {}
            for directory in (data_dir / "pycni" / "mynet", data_dir / "go" / "mynet")
        )
        assert pycni_files == go_files or not pycni_files  # DEL by pycni creates no store


def test_each_plugin_waits_for_the_lock_of_the_other(host_local: Call, go_host_local: Call, store: Path) -> None:
    """A named pipe in the store blocks the Go plugin while it holds the lock."""
    host_local("ADD", "c1", ipam=DUAL)
    os.mkfifo(store / "pipe")
    waiting = threading.Thread(target=go_host_local, args=("ADD", "c2"), kwargs={"ipam": DUAL})
    waiting.start()
    wait_for(lambda: _is_locked(store / "lock"), "Go's plugin has the lock")
    with (
        AddressStore(str(store.parent), "mynet") as pycni_store,
        pytest.raises(CniError, match=r"held by process \d+ \(host-local\)"),
    ):
        pycni_store.locked(timeout=0).__enter__()
    with open(store / "pipe", "w"):  # noqa: PTH123 - it reads from the pipe as soon as there is a writer
        (store / "pipe").unlink()  # once per range set
    waiting.join()
    assert not _is_locked(store / "lock")


def _is_locked(lock: Path) -> bool:
    return subprocess.run(["flock", "-n", "-E7", str(lock), "true"], check=False).returncode == 7
