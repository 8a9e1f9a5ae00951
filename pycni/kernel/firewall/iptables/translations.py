"""Translations of host ports in a chain CNI-DN-…: for each port, rules that set the mark, and a DNAT rule at the end.

A chain holds the ports of a container on a network, by all of its interfaces. Its rules do not tell to which interface
an address belongs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, words
from pycni.kernel.firewall.port_mappings import UdpPort
from pycni.protocol.address import Address, parse_ip


@dataclass(frozen=True)
class Translation:
    """The rules of one host port."""

    rules: Sequence[str]

    @property
    def target(self) -> Address | None:
        """The container's address; None if the DNAT rule has none, or a range."""
        try:
            return parse_ip(option(self.rules[-1], "--to-destination").rpartition(":")[0].strip("[]"))
        except ValueError:
            return None

    @property
    def udp_port(self) -> UdpPort | None:
        """The host port, if it is a UDP port."""
        rule = self.rules[-1]
        if option(rule, "-p") != "udp" or self.target is None:
            return None
        address = option(rule, "-d").partition("/")[0]
        return UdpPort(self.target.version, int(option(rule, "--dport")), parse_ip(address) if address else None)

    def is_reached_by(self, jump: str) -> bool:
        """Return whether a jump to the chain matches the host port."""
        rule = self.rules[-1]
        same_protocol = option(jump, "-p") == option(rule, "-p")
        return same_protocol and option(rule, "--dport") in option(jump, "--dports").split(",")


def parse(rules: Iterable[str]) -> list[Translation]:
    """Return the translations in these rules of a chain, in order."""
    found: list[Translation] = []
    current: list[str] = []
    for rule in rules:
        current.append(rule)
        if option(rule, "-j") == "DNAT":
            found.append(Translation(current))
            current = []
    return found


def removal(name: str, before: Listing, keep: Callable[[Translation], bool] = lambda _: False) -> list[str]:
    """Return the lines that remove the translations of a chain, except those for which `keep` returns true.

    Jumps that reach none of the remaining translations are removed too, and the chain if none remains.
    """
    if name not in before:
        return []
    found = parse(before.chains[name])
    kept = [translation for translation in found if keep(translation)]
    if not kept:
        return [*map(deletion, before.rules_to(name)), f"-F {name}", f"-X {name}"]
    if len(kept) == len(found):
        return []
    jumps = [jump for jump in before.rules_to(name) if not _reaches(jump, kept)]
    return [*map(deletion, jumps), f"-F {name}", *(rule for translation in kept for rule in translation.rules)]


def addition(
    name: str, rules: Iterable[str], jumps: Iterable[str], before: Listing, keep: Callable[[Translation], bool]
) -> list[str]:
    """Return the lines that add rules and jumps to a chain, after the translations for which `keep` returns true.

    The other translations are removed. If the chain does not exist, it is created.
    """
    if name not in before:
        return [f"-N {name}", *rules, *jumps]
    kept = [translation for translation in parse(before.chains[name]) if keep(translation)]
    existing = list(before.rules_to(name))
    used = [words(jump) for jump in existing if _reaches(jump, kept)]
    return [
        *(deletion(jump) for jump in existing if words(jump) not in used),
        f"-F {name}",
        *(rule for translation in kept for rule in translation.rules),
        *rules,
        *(jump for jump in jumps if words(jump) not in used),
    ]


def _reaches(jump: str, translations: Iterable[Translation]) -> bool:
    return any(translation.is_reached_by(jump) for translation in translations)
