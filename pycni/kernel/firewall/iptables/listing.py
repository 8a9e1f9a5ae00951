"""The chains and rules of a table as iptables-save writes them, and what is to be said to change them.

A rule is the line of iptables-save, `-A POSTROUTING -s 10.1.0.2/32 -j CNI-x`: it can be given back to iptables-restore.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_ESCAPED = re.compile(r"\\(.)")


def words(rule: str) -> list[str]:
    """The words of a rule, without quotes."""
    return [_ESCAPED.sub(r"\1", word[1:-1]) if word[0] == '"' else word for word in _WORD.findall(rule)]


def quoted(text: str) -> str:
    """The text as one word of a rule."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def option(rule: str, name: str) -> str:
    """The word behind an option such as `-s`, `-j` or `--comment`; empty if the rule does not have it."""
    found = words(rule)
    return found[found.index(name) + 1] if name in found[:-1] else ""


def deletion(rule: str) -> str:
    """The line that removes the first rule like this one."""
    return f"-D{rule[2:]}"


@dataclass(frozen=True)
class Listing:
    """A table at one moment: the rules of every chain, and what the base chains do in the end (`ACCEPT`, `DROP`)."""

    chains: Mapping[str, Sequence[str]]
    policies: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what iptables-save printed of one table."""
        chains: dict[str, list[str]] = {}
        policies: dict[str, str] = {}
        for line in text.splitlines():
            if line.startswith(":"):
                name, policy, _ = line[1:].split(" ", 2)
                chains[name], policies[name] = [], policy
            elif line.startswith("-A "):
                chains.setdefault(line.split(" ", 2)[1], []).append(line)
        return cls(chains, policies)

    def __contains__(self, chain: str) -> bool:
        return chain in self.chains

    def rules_to(self, chain: str) -> Iterator[str]:
        """Every rule that jumps or goes to the chain."""
        for rules in self.chains.values():
            for rule in rules:
                if chain in rule and chain in (option(rule, "-j"), option(rule, "-g")):
                    yield rule

    def count(self, rule: str) -> int:
        """How often the very rule stands in its chain."""
        wanted = words(rule)
        target, chain = wanted[-1], wanted[1]
        return sum(target in there and words(there) == wanted for there in self.chains.get(chain, ()))

    def once(self, rule: str, *, at_head: bool = False) -> list[str]:
        """The lines after which a shared rule stands exactly once, whatever races have made of it."""
        count = self.count(rule)
        if count == 0:
            return [f"-I{rule[2:]}" if at_head else rule]
        return [deletion(rule)] * (count - 1)
