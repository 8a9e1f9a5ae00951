"""Chains and rules of an iptables table as iptables-save prints them, and lines for iptables-restore that change them.

A rule is a line of iptables-save, such as `-A POSTROUTING -s 10.1.0.2/32 -j CNI-x`. iptables-restore accepts it as is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_ESCAPED = re.compile(r"\\(.)")


def words(rule: str) -> list[str]:
    """Return the words of a rule, without quotes."""
    return [_ESCAPED.sub(r"\1", word[1:-1]) if word[0] == '"' else word for word in _WORD.findall(rule)]


def quoted(text: str) -> str:
    """Return the text as one word of a rule."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def option(rule: str, name: str) -> str:
    """Return the value of an option such as `-s`, `-j` or `--comment`; an empty string if the rule does not have it."""
    found = words(rule)
    return found[found.index(name) + 1] if name in found[:-1] else ""


def deletion(rule: str) -> str:
    """Return the line that deletes the first rule with this text."""
    return f"-D{rule[2:]}"


@dataclass(frozen=True)
class Listing:
    """The content of a table: the rules of every chain, and the policies of base chains ("ACCEPT", "DROP")."""

    chains: Mapping[str, Sequence[str]]
    policies: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what iptables-save prints for one table."""
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
        """Yield every rule that jumps or goes to the chain."""
        for rules in self.chains.values():
            for rule in rules:
                if chain in rule and chain in (option(rule, "-j"), option(rule, "-g")):
                    yield rule

    def count(self, rule: str) -> int:
        """Return how often the rule occurs in its chain; quotes make no difference."""
        wanted = words(rule)
        target, chain = wanted[-1], wanted[1]
        return sum(target in other and words(other) == wanted for other in self.chains.get(chain, ()))

    def once(self, rule: str, *, at_head: bool = False) -> list[str]:
        """Return the lines after which a shared rule occurs exactly once. Races of Go plugins create duplicates."""
        count = self.count(rule)
        if count == 0:
            return [f"-I{rule[2:]}" if at_head else rule]
        return [deletion(rule)] * (count - 1)
