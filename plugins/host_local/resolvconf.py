"""Parser of resolv.conf(5), for the `dns` of the result."""

from pycni.sdk import Dns


def parse(text: str) -> Dns:
    """Return the DNS settings. Lists accumulate over lines, the last domain wins, other lines are ignored."""
    nameservers: list[str] = []
    domain = ""
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case [comment, *_] if comment[0] in "#;":
                pass
            case ["nameserver", nameserver, *_]:
                nameservers.append(nameserver)
            case ["domain", name, *_]:
                domain = name
            case ["search", *names]:
                search += names
            case ["options", *words]:
                options += words
    return Dns(tuple(nameservers), domain, tuple(search), tuple(options))
