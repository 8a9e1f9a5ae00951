"""What a chain CNI-DN-… translates: the rules of a port are some that mark, and one that sends it to an address.

The chain is a container's on a network, by whatever interface; and it does not say whose an address is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pycni.kernel.firewall.iptables.listing import Listing, deletion, option, words
from pycni.kernel.firewall.port_mappings import UdpPort
from pycni.protocol.address import Address, parse_ip


@dataclass(frozen=True)
class Translation:
    """The rules of one port of the host."""

    rules: Sequence[str]

    @property
    def target(self) -> Address | None:
        """The container's address; None if there is none, or several."""
        try:
            return parse_ip(option(self.rules[-1], "--to-destination").rpartition(":")[0].strip("[]"))
        except ValueError:
            return None

    @property
    def udp_port(self) -> UdpPort | None:
        """The port, if it is one of UDP."""
        rule = self.rules[-1]
        if option(rule, "-p") != "udp" or self.target is None:
            return None
        address = option(rule, "-d").partition("/")[0]
        return UdpPort(self.target.version, int(option(rule, "--dport")), parse_ip(address) if address else None)

    def is_reached_by(self, jump: str) -> bool:
        """Whether a jump to the chain is for its port, among others."""
        rule = self.rules[-1]
        same_protocol = option(jump, "-p") == option(rule, "-p")
        return same_protocol and option(rule, "--dport") in option(jump, "--dports").split(",")


def of(rules: Iterable[str]) -> list[Translation]:
    """What these rules of a chain translate, in order."""
    found, together = [], []
    for rule in rules:
        together.append(rule)
        if option(rule, "-j") == "DNAT":
            found.append(Translation(together))
            together = []
    return found


def removal(name: str, before: Listing, stays: Callable[[Translation], bool] = lambda _: False) -> list[str]:
    """The lines that remove from the chain all but what stays, with the jumps to it; and the chain if nothing does."""
    if name not in before:
        return []
    found = of(before.chains[name])
    kept = [translation for translation in found if stays(translation)]
    if not kept:
        return [*map(deletion, before.rules_to(name)), f"-F {name}", f"-X {name}"]
    if len(kept) == len(found):
        return []
    jumps = [jump for jump in before.rules_to(name) if not _reaches(jump, kept)]
    return [*map(deletion, jumps), f"-F {name}", *(rule for translation in kept for rule in translation.rules)]


def addition(
    name: str, rules: Iterable[str], jumps: Iterable[str], before: Listing, stays: Callable[[Translation], bool]
) -> list[str]:
    """The lines that add these rules and jumps to what stays in the chain, and comes first; and make the chain."""
    if name not in before:
        return [f"-N {name}", *rules, *jumps]
    kept = [translation for translation in of(before.chains[name]) if stays(translation)]
    there = list(before.rules_to(name))
    used = [words(jump) for jump in there if _reaches(jump, kept)]
    return [
        *(deletion(jump) for jump in there if words(jump) not in used),
        f"-F {name}",
        *(rule for translation in kept for rule in translation.rules),
        *rules,
        *(jump for jump in jumps if words(jump) not in used),
    ]


def _reaches(jump: str, translations: Iterable[Translation]) -> bool:
    return any(translation.is_reached_by(jump) for translation in translations)
