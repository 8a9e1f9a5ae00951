"""The netlink codec compared with pyroute2: same bytes encoded, same values decoded."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pycni.kernel.netlink import codec, messages, rtnetlink
from pycni.kernel.netlink.codec import Reader
from pycni.kernel.netlink.rtnetlink import Message, link_message
from pycni.testing import Container, Host, PluginRunner

BRIDGE = {
    "bridge": "br0",
    "isDefaultGateway": True,
    "hairpinMode": True,
    "mtu": 1400,
    "ipam": {
        "type": "static",
        "addresses": [{"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}],
        "routes": [
            {
                "dst": "10.9.0.0/16",
                "mtu": 1300,
                "advmss": 1200,
                "priority": 7,
                "table": 300,
                "scope": 253,
                "gw": "0.0.0.0",
            }
        ],
    },
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """The messages sent by the test."""
    messages: list[Message] = []
    encode = Message.encode

    def encode_and_record(self: Message, sequence: int, **how: bool) -> bytes:
        messages.append(self)
        return encode(self, sequence, **how)

    monkeypatch.setattr(Message, "encode", encode_and_record)
    return messages


def test_messages_of_add_check_and_del_are_encoded_as_by_pyroute2(sent: list[Message], container: Container) -> None:
    runner = PluginRunner("bridge", container, **BRIDGE)
    runner.add()
    runner.check()
    runner.delete()
    assert len(sent) > 20
    for message in tuple(sent):
        if "IFLA_AF_SPEC" in dict(message.attributes):
            continue  # pyroute2 does not encode it
        assert message.encode(5).hex() == message.encode_in_full(5).hex(), message


def test_codec_encodes_all_messages_of_add(sent: list[Message], container: Container) -> None:
    runner = PluginRunner("bridge", container, **BRIDGE)
    runner.add()
    for message in tuple(sent):
        flags = message.flags | rtnetlink.REQUEST
        assert codec.encode(message.type, flags, 1, message.fields, message.attributes) is not None, message


def test_add_enables_arp_notify(container: Container) -> None:
    PluginRunner("bridge", container, **BRIDGE).add()
    assert container.run("cat /proc/sys/net/ipv4/conf/eth0/arp_notify").strip() == "1"


@pytest.mark.direct
def test_check_decodes_routes_without_pyroute2(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Including multipath routes."""
    runner = PluginRunner("bridge", container, **BRIDGE)
    runner.add()
    monkeypatch.delattr(codec, "_in_full")
    runner.check()


def test_unsupported_attributes_are_encoded_by_pyroute2() -> None:
    message = link_message(rtnetlink.NEWLINK, [("IFLA_IFNAME", "x0"), ("IFLA_GROUP", 7)])
    assert codec.encode(message.type, message.flags, 1, message.fields, message.attributes) is None
    assert b"x0\0" in message.encode(1)


def attribute_paths(table: codec.Table, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, (_, coder) in table.items():
        if isinstance(coder, tuple):
            yield (*path, name)
        else:
            yield from attribute_paths(coder, (*path, name))


@pytest.mark.parametrize("kind", [rtnetlink.GETLINK, rtnetlink.GETADDR, rtnetlink.GETROUTE])
def test_answers_are_decoded_as_by_pyroute2(kind: int, host: Host, container: Container) -> None:
    PluginRunner("bridge", container, **BRIDGE).add()
    table = codec._FAMILIES[kind & ~3][2]
    answers: list[Reader] = []
    for netns in (host, container):
        answers += netns.netns.netlink.dump(Message(kind, 0, {}, []))
    assert len(answers) > 3
    for answer in answers:
        whole = answer.in_full()
        for path in attribute_paths(table):
            if "IFLA_INFO_DATA" in path and not path[-1].startswith("IFLA_BR_"):
                continue  # of link kinds that do not exist here
            by_codec: Any = answer.get_nested(*path) if len(path) > 1 else answer.get_attr(*path)
            by_pyroute2 = whole.get_nested(*path) if len(path) > 1 else whole.get_attr(*path)
            assert by_codec == by_pyroute2, path
        for field in ("index",) if kind == rtnetlink.GETLINK else ():
            assert answer[field] == whole[field]


def test_neighbour_messages_are_encoded_and_decoded_as_by_pyroute2(host: Host) -> None:
    host.run("ip link add br0 type bridge && ip link set br0 up && ip neigh add 10.1.0.8 dev br0 nud none")
    host.run("ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev br0")
    answers = host.netns.netlink.dump(Message(rtnetlink.GETNEIGH, 0, {"family": 2}, []))
    found = {answer.get_attr("NDA_DST"): answer.get_attr("NDA_LLADDR") for answer in answers}
    assert {"10.1.0.8": None, "10.1.0.9": "02:00:00:00:00:09"}.items() <= found.items()
    for answer in answers:
        whole = answer.in_full()
        assert found[whole.get_attr("NDA_DST")] == whole.get_attr("NDA_LLADDR")
        assert (answer["ifindex"], answer["state"]) == (whole["ifindex"], whole["state"])
    message = Message(
        rtnetlink.NEWNEIGH, rtnetlink.ACK, {"family": 2, "ifindex": 7, "state": 2}, [("NDA_DST", "10.1.0.9")]
    )
    assert message.encode(5).hex() == message.encode_in_full(5).hex()


def test_unsupported_attributes_are_decoded_by_pyroute2(host: Host) -> None:
    (answer,) = host.netns.netlink.request(link_message(rtnetlink.GETLINK, [("IFLA_IFNAME", "lo")]))
    assert answer.get_attr("IFLA_GROUP") == 0
    assert messages.message_class(16) is type(answer.in_full())


@given(st.ip_addresses())
@example(ip_address("::1.2.3.4"))
@example(ip_address("::ffff:1.2.3.4"))
@example(ip_address("2001:db8:0:0:1::1"))
def test_addresses_are_formatted_as_by_ipaddress(address: IPv4Address | IPv6Address) -> None:
    encode, decode = codec.IP
    assert encode(str(address)) == address.packed
    assert decode(address.packed) == str(address)
