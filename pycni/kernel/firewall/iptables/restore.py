"""Changes of iptables tables by iptables-restore: one process and one transaction per change, not one per rule.

A usual change runs a script that succeeds only if the table is as expected (`Table.change`). Only if the script is
refused is the table listed, under a lock, and a script made for what it contains.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pycni.kernel import programs
from pycni.kernel.firewall.families import FAMILY_NAMES
from pycni.kernel.firewall.iptables.listing import Listing, deletion
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.lock import locked
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError, Code

LOCK_TIMEOUT = 30  # seconds to wait for other programs that change iptables

# Files in /proc/net that list the tables of the legacy variant which the namespace has used.
_LEGACY_TABLES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_LINE = re.compile(r"\bline:? (\d+)")
_NOISE = re.compile(r"Try `|Error occurred at line|# Warning")


class IptablesError(CniError):
    """iptables refused a script. `line` is the index of the line that it refused, None if it named none."""

    def __init__(self, program: str, lines: Sequence[str], complaint: str) -> None:
        reason = " ".join(text for line in complaint.splitlines() if (text := line.strip()) and not _NOISE.match(text))
        number = _LINE.search(complaint)
        line = int(number[1]) - 2 if number else -1  # iptables counts from 1, and the first line is the table's name
        self.line = line if 0 <= line < len(lines) else None
        about = "" if self.line is None else f' "{lines[self.line]}"'
        super().__init__(f"{program} refused{about}: {reason or 'no reason given'}")


class IptablesUnavailableError(CniError):
    """The programs of iptables are not installed (code 50)."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"iptables is not available: the program {program} was not found",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="install the package iptables, or configure the backend nftables",
        )


@dataclass(frozen=True)
class Table:
    """A table of iptables (`version` 4) or ip6tables (6) in a namespace.

    variant: "nft" or "legacy"; if empty, the default of the machine, where new rules are created.
    """

    netns: NetnsHandle
    version: int
    name: str
    variant: str = ""

    def apply(self, lines: Sequence[str]) -> None:
        """Run the lines as one transaction. Raises IptablesError; CniError, code 11, if the xtables lock is held."""
        program = self._program("restore")
        script = "\n".join((f"*{self.name}", *lines, "COMMIT", ""))
        done = self._run([program, "--noflush", "-w", str(LOCK_TIMEOUT)], script)
        if done.returncode == 0:
            return
        name = program.rpartition("/")[2]
        if "xtables lock" in done.stderr:
            raise CniError(
                f"another program has held the xtables lock for {LOCK_TIMEOUT} s",
                code=Code.TRY_AGAIN_LATER,
                details=f"{name} needs /run/xtables.lock; `fuser -v /run/xtables.lock` shows the holder",
            )
        raise IptablesError(name, lines, done.stderr)

    def listing(self) -> Listing:
        """List the table. Raises IptablesError."""
        program = self._program("save")
        done = self._run([program, "-t", self.name], "")
        if done.returncode != 0:
            raise IptablesError(program.rpartition("/")[2], (), done.stderr)
        return Listing.parse(done.stdout)

    def first_missing(self, rules: Sequence[str]) -> str | None:
        """Return the first of the rules that is not in the table, or None. One process checks all of them."""
        try:
            self.apply([f"-C{rule[2:]}" for rule in rules])
        except IptablesError as error:
            if error.line is None:
                raise
            return rules[error.line]
        return None

    def edit(self, lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """List the table and run the lines that `lines_for` returns for the listing, if any.

        A lock keeps other pycni processes from editing meanwhile. /run/xtables.lock cannot serve as that lock: iptables
        itself takes it in each process, and only the legacy variant does.
        """
        with locked(self.netns, "changing iptables"):
            lines = lines_for(self.listing())
            if lines:
                self.apply(lines)

    def change(self, usual: Sequence[str], lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """Run the `usual` lines, and if they are refused `edit` with `lines_for`.

        The `usual` lines must fail if the table is not as they expect: `-N CHAIN` fails if the chain exists, `-C RULE`
        and `-D RULE` if the rule does not. A script that is refused changes nothing.
        """
        try:
            self.apply(usual)
        except IptablesError:
            self.edit(lines_for)

    def delete_chain(self, chain: str, rules: Sequence[str], lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """Delete the chain and the rules that jump to it. If there are other jumps, `edit` with `lines_for`.

        Nothing happens if the chain does not exist.
        """
        try:
            self.apply([f"-F {chain}", *map(deletion, rules), f"-X {chain}"])
        except IptablesError as error:
            if error.line != 0:  # line 0 fails if the chain does not exist
                self.edit(lines_for)

    def is_empty(self, chain: str) -> bool:
        """Return whether the chain is known to have no rules; False for the legacy variant, which needs a process."""
        if self.variant != "nft":
            return False
        return lookup(self.netns).count_rules(FAMILY_NAMES[self.version], self.name, chain) == 0

    def find_program(self, suffix: str) -> str | None:
        """Return the path of iptables-restore or iptables-save (`suffix` "restore" or "save"), or None."""
        return programs.find(*self._program_names(suffix))

    def _program(self, suffix: str) -> str:
        program = self.find_program(suffix)
        if program is None:
            raise IptablesUnavailableError(self._program_names(suffix)[-1])
        return program

    def _program_names(self, suffix: str) -> list[str]:
        word = FAMILY_NAMES[self.version]
        own = [f"{word}tables-{self.variant}-{suffix}"] if self.variant else []
        return [*own, f"{word}tables-{suffix}"]

    def _run(self, command: list[str], stdin: str) -> "subprocess.CompletedProcess[str]":
        pipe = subprocess.PIPE
        with self.netns.enter():
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
        with process, yield_turn(briefly=True):
            stdout, stderr = process.communicate(stdin)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def tables_with(netns: NetnsHandle, name: str, chain: str) -> list[Table]:
    """Return the tables called `name` that may have the chain, of both IP versions and variants, without a process.

    The chains of the nft variant are looked up in nftables by name. For the legacy variant, the kernel only tells which
    tables the namespace has ever used.
    """
    return [*_nft_tables(netns, name, chain), *_legacy_tables(netns, name)]


def _nft_tables(netns: NetnsHandle, name: str, chain: str) -> list[Table]:
    families = lookup(netns).families_with_chain(FAMILY_NAMES.values(), name, chain)
    return [Table(netns, version, name, "nft") for version, family in FAMILY_NAMES.items() if family in families]


def _legacy_tables(netns: NetnsHandle, name: str) -> Iterator[Table]:
    for version in FAMILY_NAMES:
        table = Table(netns, version, name, "legacy")
        # Without the programs, pycni did not create the rules: a container may have brought its own iptables.
        if name in _legacy_tables_in_use(netns, version, if_unknown=name) and table.find_program("restore"):
            yield table


def _legacy_tables_in_use(netns: NetnsHandle, version: int, *, if_unknown: str) -> list[str]:
    """Return the legacy tables that the namespace has used.

    In a user namespace the kernel does not tell. Then it is `if_unknown`, if the machine's default variant is legacy.
    """
    try:
        with netns.enter():
            return _read_file(f"/proc/thread-self/net/{_LEGACY_TABLES[version]}").split()
    except FileNotFoundError:
        return []
    except PermissionError:  # only root of the initial user namespace may read the file
        default = Table(netns, version, if_unknown).find_program("restore")
        return [if_unknown] if "legacy" in os.path.realpath(default or "") else []


def _read_file(path: str) -> str:
    """Return the content of a short file with one read; pathlib makes ten system calls."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode("ascii")
    finally:
        os.close(fd)


def drops_forwarding(netns: NetnsHandle) -> bool:
    """Return whether the policy of an iptables FORWARD chain is DROP, as Docker sets it.

    False if the programs are not installed, because then no accepting rule can be added.
    """
    policies = lookup(netns).policies(FAMILY_NAMES.values(), "filter", "FORWARD")
    dropping = [version for version, family in FAMILY_NAMES.items() if policies.get(family) == "drop"]
    if any(Table(netns, version, "filter", "nft").find_program("restore") for version in dropping):
        return True
    return any(table.listing().policies.get("FORWARD") == "DROP" for table in _legacy_tables(netns, "filter"))


def is_installed() -> bool:
    """Return whether the programs are installed."""
    return programs.find("iptables-restore") is not None


def probe(netns: NetnsHandle) -> None:
    """Raise CniError, code 50, unless iptables works in the namespace."""
    try:
        Table(netns, 4, "nat").apply([])
    except CniError as error:
        raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None
