"""iptables-restore scripts: applying, errors, listing and locks, with both variants."""

import fcntl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pycni.kernel.firewall.iptables import restore
from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, quoted, words
from pycni.kernel.firewall.iptables.restore import IptablesError, IptablesUnavailableError, Table, tables_with
from pycni.kernel.journal import Journal
from pycni.kernel.netns import lock
from pycni.kernel.netns.handle import OWN, NetnsHandle
from pycni.kernel.netns.lock import locked
from pycni.protocol.errors import CniError
from pycni.testing import Host

JUMP = f"-A POSTROUTING -m comment --comment {quoted('a shared rule')} -j SHARED"


@pytest.fixture(params=[4, 6])
def table(request: pytest.FixtureRequest, host: Host, iptables: str) -> Table:
    return Table(host.netns, request.param, "nat")


def test_applied_rules_are_listed(table: Table) -> None:
    rule = r'-A CNI-a -m comment --comment "name: \"n\" id: \"i\"" -j RETURN'
    table.apply(["-N CNI-a", rule, "-A POSTROUTING -j CNI-a"])
    listing = table.listing()
    assert listing.chains["CNI-a"] == [rule]
    assert listing.chains["POSTROUTING"] == ["-A POSTROUTING -j CNI-a"]
    assert list(listing.rules_to("CNI-a")) == ["-A POSTROUTING -j CNI-a"]
    assert "CNI-b" not in listing


def test_script_is_applied_completely_or_not_at_all(table: Table) -> None:
    with pytest.raises(IptablesError) as caught:
        table.apply(["-N CNI-a", "-A POSTROUTING -j CNI-a", "-D POSTROUTING -j RETURN"])
    assert caught.value.line == 2
    assert 'refused "-D POSTROUTING -j RETURN": ' in str(caught.value)
    assert "CNI-a" not in table.listing()


def test_error_contains_the_message_of_iptables(table: Table) -> None:
    with pytest.raises(IptablesError, match=r'tables.*-restore refused "-A POSTROUTING --nonsense": .*nonsense'):
        table.apply(["-A POSTROUTING --nonsense"])


def test_first_missing_rule_is_found_without_listing_the_table(table: Table) -> None:
    table.apply(["-N SHARED", JUMP, "-A SHARED -j RETURN"])
    assert table.first_missing([JUMP, "-A SHARED -j RETURN"]) is None
    assert table.first_missing([JUMP, "-A SHARED -j ACCEPT", "-A GONE -j ACCEPT"]) == "-A SHARED -j ACCEPT"
    assert table.first_missing(["-A GONE -j ACCEPT"]) == "-A GONE -j ACCEPT"


def test_common_case_does_not_list_the_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "listing", lambda _: pytest.fail("the table was listed"))
    table.change(["-N CNI-a", "-A CNI-a -j RETURN"], lambda _: [])
    table.delete_chain("CNI-a", [], lambda _: [])
    table.delete_chain("CNI-a", [], lambda _: [])


def test_change_lists_the_table_if_the_script_is_refused(table: Table) -> None:
    table.apply(["-N CNI-a"])
    table.change(
        ["-N CNI-a", "-A CNI-a -j RETURN"],
        lambda before: [f"-A {chain} -j RETURN" for chain in before.chains if chain == "CNI-a"],
    )
    assert table.listing().chains["CNI-a"] == ["-A CNI-a -j RETURN"]


def test_delete_chain_lists_the_table_if_other_rules_jump_to_it(table: Table) -> None:
    table.apply(["-N SHARED", JUMP, "-A OUTPUT -j SHARED"])
    seen: list[Listing] = []
    table.delete_chain("SHARED", [JUMP], lambda before: seen.append(before) or [])
    assert list(seen[0].rules_to("SHARED")) == ["-A OUTPUT -j SHARED", JUMP]


def test_duplicates_of_shared_rules_are_removed(table: Table) -> None:
    table.apply(["-N SHARED", JUMP, "-A POSTROUTING -j RETURN", JUMP, JUMP])
    table.edit(lambda before: before.once(JUMP))
    assert table.listing().chains["POSTROUTING"] == ["-A POSTROUTING -j RETURN", JUMP]


def test_shared_rule_can_be_required_at_the_head_of_the_chain(table: Table) -> None:
    table.apply(["-N SHARED", "-A POSTROUTING -j RETURN"])
    table.edit(lambda before: before.once(JUMP, at_head=True))
    assert table.listing().chains["POSTROUTING"] == [JUMP, "-A POSTROUTING -j RETURN"]


@pytest.mark.parametrize("round_", range(3))
def test_16_concurrent_first_edits_create_each_shared_rule_once(table: Table, round_: int) -> None:
    def ensure(before: Listing) -> Sequence[str]:
        chain = [] if "SHARED" in before else ["-N SHARED"]
        return [*chain, *before.once(JUMP), *before.once("-A OUTPUT -j SHARED", at_head=True)]

    def first_add(number: int) -> None:
        own = f"CNI-{number}"
        table.change(
            [f"-C{JUMP[2:]}", f"-N {own}", f"-A SHARED -s {_address(table, number)} -j {own}"],
            lambda before: [*ensure(before), f"-N {own}", f"-A SHARED -s {_address(table, number)} -j {own}"],
        )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(first_add, range(16)))
    listing = table.listing()
    assert len(listing.chains["SHARED"]) == 16
    assert listing.chains["POSTROUTING"] == [JUMP]
    assert listing.chains["OUTPUT"] == ["-A OUTPUT -j SHARED"]


def _address(table: Table, number: int) -> str:
    return f"10.1.0.{number}/32" if table.version == 4 else f"fd00::{number}/128"


def test_waiting_for_the_xtables_lock_times_out(
    host: Host, use_iptables: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_iptables("legacy")  # the nft variant has no lock
    monkeypatch.setattr(restore, "LOCK_TIMEOUT", 1)
    with (tmp_path / "xtables.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CniError, match="another program has held the xtables lock for 1 s") as caught:
            Table(host.netns, 4, "nat").apply(["-N CNI-a"])
    assert caught.value.code == 11
    assert "/run/xtables.lock" in caught.value.details


def test_waiting_for_the_namespace_lock_times_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMEOUT", 0.01)
    with locked(host.netns, "changing iptables"):
        with pytest.raises(CniError, match="another plugin has been changing iptables for 0.01 s") as caught:
            Table(host.netns, 4, "nat").edit(lambda _: [])
        assert caught.value.code == 11
    Table(host.netns, 4, "nat").edit(lambda _: [])


def test_locks_of_two_namespaces_are_independent(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMEOUT", 0.01)
    other = Host(tmp_path)
    with locked(host.netns, "testing"), locked(other.netns, "testing"):
        pass
    other.close()


def test_tables_with_a_chain_are_found_without_a_process(
    host: Host, iptables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tables_with(host.netns, "nat", "CNI-a") == []
    Table(host.netns, 6, "nat").apply(["-N CNI-a"])
    monkeypatch.setattr(Table, "_run", lambda *_: pytest.fail("a process was started"))
    (found,) = tables_with(host.netns, "nat", "CNI-a")
    assert (found.version, found.variant) == (6, iptables)
    # For the legacy variant only the use of the table is known.
    assert len(tables_with(host.netns, "nat", "CNI-b")) == (1 if iptables == "legacy" else 0)


def test_legacy_tables_are_ignored_without_the_legacy_programs(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kube-proxy in a container brings its own iptables. DEL must not fail on a host without iptables."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    Table(host.netns, 4, "nat", "legacy").apply(["-N KUBE-SERVICES"])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    assert tables_with(host.netns, "nat", "CNI-a") == []


def test_legacy_tables_are_assumed_if_their_names_cannot_be_read(
    host: Host, iptables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root of a user namespace cannot read them."""

    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("pycni.kernel.firewall.iptables.restore._read_file", refuse)
    assert len(tables_with(host.netns, "nat", "CNI-a")) == (2 if iptables == "legacy" else 0)


def test_namespace_of_the_handle_is_used(host: Host, iptables: str, tmp_path: Path) -> None:
    other = Host(tmp_path)
    Table(other.netns, 4, "nat").apply(["-N CNI-a"])
    assert len(tables_with(other.netns, "nat", "CNI-a")) == 1
    assert tables_with(host.netns, "nat", "CNI-a") == []
    assert "CNI-a" in Table(other.netns, 4, "nat").listing()
    assert "CNI-a" not in Table(host.netns, 4, "nat").listing()
    other.close()


def test_error_without_iptables_names_the_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("pycni.kernel.programs._SYSTEM_DIRECTORIES", "/nowhere")
    with pytest.raises(IptablesUnavailableError, match="the program ip6tables-restore was not found") as caught:
        Table(host.netns, 6, "nat").apply(["-N CNI-a"])
    assert caught.value.code == 50
    assert "install the package iptables" in caught.value.details
    with pytest.raises(CniError, match="iptables is not available") as caught_by_probe:
        restore.probe(host.netns)
    assert caught_by_probe.value.code == 50


def test_system_directories_are_searched_in_addition_to_path(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    restore.probe(host.netns)


def test_rule_is_split_into_words() -> None:
    rule = r'-A POSTROUTING -s 10.0.0.1/32 -m comment --comment "name: \"a\\b\" id: \"c\"" -j CNI-a'
    assert words(rule)[7:9] == [r'name: "a\b" id: "c"', "-j"]
    assert (option(rule, "-s"), option(rule, "-j"), option(rule, "-d")) == ("10.0.0.1/32", "CNI-a", "")
    assert quoted(r'name: "a\b" id: "c"') in rule
    assert deletion(rule).startswith("-D POSTROUTING -s")


@pytest.mark.parametrize(
    "text", ["", "*nat\nCOMMIT\n", '-A X -m comment --comment "open\n', "# Table `nat' is incompatible"]
)
def test_unusual_listings_are_parsed(text: str) -> None:
    listing = Listing.parse(text)
    assert list(listing.rules_to("CNI-a")) == []
    assert listing.once("-A X -j CNI-a") == ["-A X -j CNI-a"]


def test_lock_is_released_when_its_process_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(lock, "TIMEOUT", 2)
    pid = os.fork()
    if pid == 0:
        with locked(NetnsHandle(OWN, Journal()), "testing"):
            os._exit(0)
    os.waitpid(pid, 0)
    with locked(host.netns, "changing iptables"):
        pass
