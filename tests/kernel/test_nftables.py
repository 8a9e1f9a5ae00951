"""nftables through the library and through the program nft."""

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest

from pycni.kernel.firewall.nftables import nft
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.firewall.nftables.masquerade import NftablesMasquerade
from pycni.kernel.firewall.nftables.nft import Library, NftError, NftUnavailableError, Program
from pycni.kernel.journal import Journal
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.owner import Owner, Stale
from pycni.protocol.address import parse_cidr
from pycni.protocol.errors import CniError
from pycni.testing import Host

FIRST, OTHER = Owner("n", "first", "eth0"), Owner("n", "other", "eth0")
CIDRS = [parse_cidr("10.1.0.2/24"), parse_cidr("fd00::2/64")]


@pytest.fixture(params=["library", "program"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run nftables through the library, and through the program."""
    if request.param == "program":
        monkeypatch.setattr(nft, "_open", Program)
    return str(request.param)


@pytest.mark.usefixtures("backend")
class TestElements:
    """Masquerade elements of attachments."""

    def test_elements_are_created_and_deleted_by_owner(self, host: Host) -> None:
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
        NftablesMasquerade(host.netns).expect(CIDRS, FIRST)
        NftablesMasquerade(host.netns).delete(OTHER)
        NftablesMasquerade(host.netns).expect(CIDRS, FIRST)
        NftablesMasquerade(host.netns).delete(FIRST)
        with pytest.raises(CniError, match=r"masquerading of 10\.1\.0\.2 is missing"):
            NftablesMasquerade(host.netns).expect(CIDRS, FIRST)

    def test_delete_with_addresses_keeps_elements_of_other_owners(self, host: Host) -> None:
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
        NftablesMasquerade(host.netns).delete(OTHER, CIDRS)
        NftablesMasquerade(host.netns).expect(CIDRS, FIRST)
        NftablesMasquerade(host.netns).delete(FIRST, CIDRS)
        NftablesMasquerade(host.netns).delete(FIRST, CIDRS)
        assert "10.1.0.2" not in host.run("nft list ruleset")

    def test_stale_element_of_another_owner_is_replaced(self, host: Host) -> None:
        """IPAM reassigns an address although no DEL was sent."""
        NftablesMasquerade(host.netns).create(CIDRS, OTHER)
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
        NftablesMasquerade(host.netns).expect(CIDRS, FIRST)

    def test_gc_deletes_elements_without_a_valid_attachment(self, host: Host) -> None:
        neighbour = [parse_cidr("10.1.0.3/24")]
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
        NftablesMasquerade(host.netns).create(neighbour, OTHER)
        NftablesMasquerade(host.netns).delete(Stale("n", [OTHER]))
        assert "10.1.0.2" not in host.run("nft list ruleset")
        NftablesMasquerade(host.netns).expect(neighbour, OTHER)
        NftablesMasquerade(host.netns).delete(Stale("n", []))
        assert "10.1.0.3" not in host.run("nft list ruleset")

    def test_each_prefix_length_has_its_own_rule(self, host: Host) -> None:
        for number, cidr in enumerate(["10.1.0.2/24", "10.2.0.2/16", "10.3.0.2/24", "fd00::2/64", "10.4.0.2/32"]):
            NftablesMasquerade(host.netns).create([parse_cidr(cidr)], Owner("n", str(number), "eth0"))
        rules = host.run("nft list chain inet pycni postrouting")
        places = re.findall(r"@(masquerade[-0-9]+) ip6? daddr != \S+ masquerade", rules)
        assert places == ["masquerade4-24", "masquerade4-16", "masquerade6-64", "masquerade4-32"]

    def test_concurrent_first_attachments_create_the_rules_once(self, host: Host) -> None:
        def create(number: int) -> None:
            with host.netns.enter():
                netns = NetnsHandle(OWN, Journal())
            NftablesMasquerade(netns).create([parse_cidr(f"10.1.0.{number}/24")], Owner("n", str(number), "eth0"))
            netns.close()

        with ThreadPoolExecutor() as pool:
            list(pool.map(create, range(2, 18)))
        assert host.run("nft list chain inet pycni postrouting").count(" masquerade\n") == 1
        assert host.run("nft list set inet pycni masquerade4-24").count("comment") == 16

    def test_delete_succeeds_without_a_table(self, host: Host) -> None:
        NftablesMasquerade(host.netns).delete(FIRST)
        NftablesMasquerade(host.netns).delete(FIRST, CIDRS)

    def test_rules_exist_once(self, host: Host) -> None:
        for number in range(3):
            owner = Owner("n", str(number), "eth0")
            cidr = parse_cidr(f"10.1.0.{number + 2}/24")
            NftablesMasquerade(host.netns).create([cidr], owner)
        assert host.run("nft list chain inet pycni postrouting").count(" masquerade\n") == 1


def test_error_contains_the_message_of_nft(host: Host) -> None:
    opened = nft.opened(host.netns)
    with pytest.raises(NftError, match="nftables refused: .*syntax error"):
        opened.run("add nonsense")


def test_library_works_in_the_namespace_of_the_handle(host: Host) -> None:
    opened = nft.opened(host.netns)
    assert isinstance(opened, Library)
    opened.run("add table inet t")
    assert "table inet t" in host.run("nft list tables")


def test_reading_succeeds_while_other_threads_change_the_rules(host: Host) -> None:
    """DEL failed with "Interrupted system call" when twelve pods of a node were stopped at the same time."""
    NftablesMasquerade(host.netns).create(CIDRS, FIRST)
    stop = Event()

    def change_rules(number: int) -> None:
        opened = nft.opened(host.netns)
        while not stop.is_set():
            opened.run(f"add chain inet pycni other{number}\ndelete chain inet pycni other{number}")

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(change_rules, number) for number in range(4)]
        try:
            for _ in range(200):
                NftablesMasquerade(host.netns).expect(CIDRS, FIRST)
        finally:
            stop.set()
        for writer in writers:
            writer.result()


@pytest.mark.parametrize(
    ("table", "chain", "families"),
    [("nat", "one", ["ip"]), ("nat", "two", ["ip6"]), ("nat", "no", []), ("filter", "one", [])],
)
def test_chain_is_found_by_name(host: Host, table: str, chain: str, families: list[str]) -> None:
    host.run(
        "nft 'table ip nat { chain one { }; }; table ip6 nat { chain two { }; }; table ip other { chain two { }; }'"
    )
    kernel = lookup(host.netns)
    assert [family for family in ("ip", "ip6") if kernel.has_chain(family, table, chain)] == families


def test_error_without_nftables_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "_open", Program)
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NftUnavailableError) as caught:
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
    assert "libnftables1" in caught.value.details
    NftablesMasquerade(host.netns).delete(FIRST)
    with pytest.raises(CniError) as probed:
        nft.probe(host.netns)
    assert probed.value.code == 50


MANY_THREADS = """
import threading
from pycni.kernel.firewall.nftables.nft import Library

Library().run('add table inet t; add chain inet t c; add rule inet t c iif "lo" accept')

def read() -> None:
    library = Library()
    for _ in range(300):
        library.run("list chain inet t c")

threads = [threading.Thread(target=read) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Open more than 1024 files, so that libnftables, which uses select(), would abort the process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 1200:
        pytest.skip("needs a limit of 1200 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with ExitStack() as stack:
        while stack.enter_context(open("/dev/null", "rb")).fileno() < 1100:  # noqa: PTH123
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_program_is_used_with_many_open_files(host: Host) -> None:
    NftablesMasquerade(host.netns).create(CIDRS, FIRST)
    NftablesMasquerade(host.netns).expect(CIDRS, FIRST)
    NftablesMasquerade(host.netns).delete(FIRST)


@pytest.mark.usefixtures("many_open_files")
def test_many_open_files_without_the_program_are_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft.programs, "find", lambda *_: None)
    with pytest.raises(CniError, match="too many files are open") as caught:
        NftablesMasquerade(host.netns).create(CIDRS, FIRST)
    assert caught.value.code == 11


def test_library_can_be_used_by_many_threads(host: Host) -> None:
    """libnftables has one cache of interface names per process. Its concurrent use crashed the server."""
    done = subprocess.run([sys.executable, "-c", MANY_THREADS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
