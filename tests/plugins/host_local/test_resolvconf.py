"""Parsing of resolv.conf (docs/reference/plugins.md#host-local)."""

import pytest
from pycni_plugins.host_local import resolvconf

from pycni.protocol.result import Dns


@pytest.mark.parametrize(
    ("text", "dns"),
    [
        ("", Dns()),
        ("# nameserver 1.1.1.1\n;domain x\n  # indented\n\n", Dns()),
        ("nameserver 10.0.0.53 # trailing\nnameserver\tfd00::53\n", Dns(nameservers=("10.0.0.53", "fd00::53"))),
        ("domain a.example\ndomain b.example\n", Dns(domain="b.example")),
        ("search a.b c.d\nsearch e.f", Dns(search=("a.b", "c.d", "e.f"))),
        ("options ndots:2 rotate\n", Dns(options=("ndots:2", "rotate"))),
        ("nameserver\nsearch\nsortlist 1.2.3.4\nbroken\n", Dns()),
    ],
)
def test_resolv_conf_is_parsed(text: str, dns: Dns) -> None:
    assert resolvconf.parse(text) == dns
