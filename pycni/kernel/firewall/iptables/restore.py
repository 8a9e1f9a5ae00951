"""iptables by iptables-restore: a script is one process and one transaction, and never is there a process a rule.

The usual change is made blindly, by a script that holds where nothing unusual is there (`Table.change`). Only if it is
refused is the table listed, under a lock, and what is really there taken into account.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.kernel import programs
from pycni.kernel.firewall.iptables.listing import Listing, deletion
from pycni.kernel.firewall.nftables.lookup import lookup
from pycni.kernel.netns.handle import NetnsHandle
from pycni.kernel.netns.lock import locked
from pycni.kernel.scheduling import yield_turn
from pycni.protocol.errors import CniError, Code

PATIENCE = 30  # seconds to wait for whoever else is changing iptables

_WORD = {4: "ip", 6: "ip6"}
_NAMES = {4: "ip_tables_names", 6: "ip6_tables_names"}  # of the legacy tables of a namespace, under /proc/net
_LINE = re.compile(r"\bline:? (\d+)")
_NOISE = re.compile(r"Try `|Error occurred at line|# Warning")


class IptablesError(CniError):
    """A script was refused as a whole, because of its line number `line` (from 0; None: of no line in particular)."""

    def __init__(self, program: str, lines: Sequence[str], complaint: str) -> None:
        reason = " ".join(text for line in complaint.splitlines() if (text := line.strip()) and not _NOISE.match(text))
        number = _LINE.search(complaint)
        line = int(number[1]) - 2 if number else -1  # before our first line stands the table's name
        self.line = line if 0 <= line < len(lines) else None
        about = "" if self.line is None else f' "{lines[self.line]}"'
        super().__init__(f"{program} refused{about}: {reason or 'no reason given'}")


class IptablesUnavailableError(CniError):
    """The programs of iptables are not on this machine (code 50)."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"iptables is not available: the program {program} was not found",
            code=Code.PLUGIN_NOT_AVAILABLE,
            details="install the package iptables, or let the configuration name the backend nftables",
        )


@dataclass(frozen=True)
class Table:
    """A table of iptables (`version` 4) or ip6tables (6) in a namespace.

    `variant` is "nft" or "legacy"; empty is what the machine has chosen, and where new rules go.
    """

    netns: NetnsHandle
    version: int
    name: str
    variant: str = ""

    def apply(self, lines: Sequence[str]) -> None:
        """Run the lines as one transaction. Raises IptablesError; CniError, code 11, if iptables stays locked."""
        program = self._program("restore")
        script = "\n".join((f"*{self.name}", *lines, "COMMIT", ""))
        done = self._run([program, "--noflush", "-w", str(PATIENCE)], script)
        if done.returncode == 0:
            return
        if "xtables lock" in done.stderr:
            raise CniError(
                f"another program has kept the xtables lock for {PATIENCE} s",
                code=Code.TRY_AGAIN_LATER,
                details=f"{Path(program).name} waits for /run/xtables.lock; `fuser -v` on it names who has it",
            )
        raise IptablesError(Path(program).name, lines, done.stderr)

    def listing(self) -> Listing:
        """What is in the table. Raises IptablesError."""
        program = self._program("save")
        done = self._run([program, "-t", self.name], "")
        if done.returncode != 0:
            raise IptablesError(Path(program).name, (), done.stderr)
        return Listing.parse(done.stdout)

    def first_missing(self, rules: Sequence[str]) -> str | None:
        """The first of these rules that is not in the table, if any is not; asked at once, without a listing."""
        try:
            self.apply([f"-C{rule[2:]}" for rule in rules])
        except IptablesError as error:
            if error.line is None:
                raise
            return rules[error.line]
        return None

    def edit(self, lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """Run the lines that suit what is in the table, while nobody else of ours edits; none: nothing is run.

        (/run/xtables.lock would not do: iptables itself takes it for each process, and only the legacy variant does.)
        """
        with locked(self.netns, "changing iptables"):
            lines = lines_for(self.listing())
            if lines:
                self.apply(lines)

    def change(self, usual: Sequence[str], lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """Run the `usual` lines, which must fail where they do not suit; there, edit.

        `-N CHAIN` fails where the chain exists, `-C` and `-D` where the rule does not: a script that begins so either
        finds what it expects or changes nothing.
        """
        try:
            self.apply(usual)
        except IptablesError:
            self.edit(lines_for)

    def delete_chain(self, chain: str, rules: Sequence[str], lines_for: Callable[[Listing], Sequence[str]]) -> None:
        """Remove the chain with the rules that lead to it, if those are all; else edit. Gone is fine."""
        try:
            self.apply([f"-F {chain}", *map(deletion, rules), f"-X {chain}"])
        except IptablesError as error:
            if error.line != 0:
                self.edit(lines_for)

    def is_empty(self, chain: str) -> bool:
        """Whether the chain has no rules, as far as is known without a process: of a legacy one nothing is."""
        if self.variant != "nft":
            return False
        return lookup(self.netns).rules(_WORD[self.version], self.name, chain) == 0

    def find_program(self, suffix: str) -> str | None:
        """The path of its "restore" or "save", if this machine has it."""
        return programs.find(*self._program_names(suffix))

    def _program(self, suffix: str) -> str:
        program = self.find_program(suffix)
        if program is None:
            raise IptablesUnavailableError(self._program_names(suffix)[-1])
        return program

    def _program_names(self, suffix: str) -> list[str]:
        word = _WORD[self.version]
        own = [f"{word}tables-{self.variant}-{suffix}"] if self.variant else []
        return [*own, f"{word}tables-{suffix}"]

    def _run(self, command: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
        pipe = subprocess.PIPE
        with self.netns.entered():
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
        with process, yield_turn(briefly=True):
            stdout, stderr = process.communicate(stdin)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def tables_with(netns: NetnsHandle, name: str, chain: str) -> list[Table]:
    """The tables called `name` in which the chain may be, in both families and both variants; without a process.

    The nft variant keeps its chains in nftables, where one can be looked up by name, however many there are.
    Of the legacy one the kernel tells which tables the namespace has ever used.
    """
    return [*_nft_tables(netns, name, chain), *_legacy_tables(netns, name)]


def _nft_tables(netns: NetnsHandle, name: str, chain: str) -> list[Table]:
    families = lookup(netns).chains(_WORD.values(), name, chain)
    return [Table(netns, version, name, "nft") for version, family in _WORD.items() if family in families]


def _legacy_tables(netns: NetnsHandle, name: str) -> Iterator[Table]:
    for version in _WORD:
        table = Table(netns, version, name, "legacy")
        # Without the programs what is there is not ours: a container may have brought its own.
        if name in _names_in_use(netns, version, unknown=name) and table.find_program("restore"):
            yield table


def _names_in_use(netns: NetnsHandle, version: int, *, unknown: str) -> list[str]:
    """The legacy tables that the namespace has used; `unknown` if the kernel does not tell and it may be so."""
    try:
        with netns.entered():
            return _content(f"/proc/thread-self/net/{_NAMES[version]}").split()
    except FileNotFoundError:
        return []
    except PermissionError:  # it is for root alone, and we are root of a user namespace
        chosen = Table(netns, version, unknown).find_program("restore")
        return [unknown] if "legacy" in os.path.realpath(chosen or "") else []


def _content(path: str) -> str:
    """What is in a short file of the kernel's; pathlib would ask it ten times."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode("ascii")
    finally:
        os.close(fd)


def drops_forwarding(netns: NetnsHandle) -> bool:
    """Whether iptables drops what it has no rule for on the way through the namespace, as it does where Docker is.

    False without the programs: then nothing can be done about it.
    """
    policies = lookup(netns).policies(_WORD.values(), "filter", "FORWARD")
    dropping = [version for version, family in _WORD.items() if policies.get(family) == "drop"]
    if any(Table(netns, version, "filter", "nft").find_program("restore") for version in dropping):
        return True
    return any(table.listing().policies.get("FORWARD") == "DROP" for table in _legacy_tables(netns, "filter"))


def is_installed() -> bool:
    """Whether this machine has the programs."""
    return programs.find("iptables-restore") is not None


def probe(netns: NetnsHandle) -> None:
    """Raise CniError, code 50, unless iptables works in the namespace."""
    try:
        Table(netns, 4, "nat").apply([])
    except CniError as error:
        raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None
