"""The DHCP wire format: compared with pyroute2 for simple messages, and malformed or unusual messages."""

from ipaddress import IPv4Address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycni_plugins.dhcp import options
from pycni_plugins.dhcp.message import Message, MessageError, MessageType
from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.enums import dhcp

from pycni.sdk import Route

MAC = "02:00:00:00:00:07"
COOKIE = b"\x63\x82\x53\x63"


def reply(raw_options: bytes, *, server_name: bytes = b"", file: bytes = b"") -> bytes:
    """Return a server's message with these bytes as its options."""
    fixed = bytes([2, 1, 6, 0]) + (77).to_bytes(4, "big") + bytes(8) + IPv4Address("10.55.0.100").packed + bytes(8)
    hardware = bytes.fromhex(MAC.replace(":", "")).ljust(16, b"\0")
    return fixed + hardware + server_name.ljust(64, b"\0") + file.ljust(128, b"\0") + COOKIE + raw_options


def test_pyroute2_decodes_encoded_messages() -> None:
    wanted, most = IPv4Address("10.55.0.7").packed, (1500).to_bytes(2, "big")
    message = Message(
        MessageType.REQUEST,
        0xDEADBEEF,
        MAC,
        ciaddr=IPv4Address("10.55.0.100"),
        broadcast=True,
        secs=9,
        options={50: wanted, 55: bytes([3, 1, 121]), 12: b"web-0", 57: most},
    )
    read = dhcp4msg(buf=message.encode()).decode()
    assert (read["op"], read["xid"], read["secs"], read["flags"]) == (1, 0xDEADBEEF, 9, 0x8000)
    assert (read["chaddr"], read["ciaddr"], read["yiaddr"]) == (MAC, "10.55.0.100", "0.0.0.0")
    assert read["options"] == {
        "message_type": dhcp.MessageType.REQUEST,
        "requested_ip": "10.55.0.7",
        "parameter_list": [3, 1, 121],
        "host_name": "web-0",
        "max_msg_size": 1500,
    }


def test_messages_encoded_by_pyroute2_are_decoded() -> None:
    written = dhcp4msg(
        {
            "op": 2,
            "xid": 77,
            "yiaddr": "10.55.0.100",
            "chaddr": MAC,
            "options": {
                "message_type": dhcp.MessageType.ACK,
                "server_id": "10.55.0.1",
                "subnet_mask": "255.255.255.0",
                "router": ["10.55.0.1", "10.55.0.2"],
                "lease_time": 3600,
            },
        }
    )
    message = Message.decode(bytes(written.encode().buf))
    assert (message.message_type, message.xid, message.chaddr, message.yiaddr) == (
        MessageType.ACK,
        77,
        MAC,
        IPv4Address("10.55.0.100"),
    )
    assert options.addresses(message.options[3]) == [IPv4Address("10.55.0.1"), IPv4Address("10.55.0.2")]
    assert options.seconds(message.options[51]) == 3600


def test_long_option_is_split_and_joined() -> None:
    """RFC 3396. pyroute2 returns only the last part."""
    parts = b"\x35\x01\x05" + b"\x79\x03abc" + b"\x06\x04\x0a\x00\x00\x01" + b"\x79\x03def" + b"\xff"
    assert Message.decode(reply(parts)).options[121] == b"abcdef"
    long = Message(MessageType.DISCOVER, 1, MAC, options={77: bytes(600)})
    assert long.encode().count(bytes([77, 255])) == 2


def test_options_continue_in_the_file_and_sname_fields() -> None:
    """RFC 2132 section 9.3, option overload: `file` comes before `sname`."""
    data = reply(
        b"\x35\x01\x05\x34\x01\x03\x79\x01a\xff", file=b"\x79\x01b\xff", server_name=b"\x79\x01c\x0f\x03org\xff"
    )
    message = Message.decode(data)
    assert message.options[121] == b"abc"
    assert message.options[15] == b"org"


@pytest.mark.parametrize(
    "data",
    [b"", bytes(240), reply(b"\xff"), reply(b"\x35\x01\x63\xff"), reply(b"\x35\x02\x05\x05\xff"), reply(b"")[:239]],
)
def test_bytes_that_are_not_a_server_message_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        Message.decode(data)


def test_truncated_option_is_ignored_and_the_options_before_it_are_kept() -> None:
    message = Message.decode(reply(b"\x35\x01\x05\x03\x04\x0a\x37\x00\x01\x0f\x20org"))
    assert message.options == {3: IPv4Address("10.55.0.1").packed}


@given(st.binary(max_size=700), st.binary(max_size=64), st.binary(max_size=128))
def test_arbitrary_bytes_raise_nothing_but_message_error(raw: bytes, server_name: bytes, file: bytes) -> None:
    for data in (raw, reply(b"\x35\x01\x05" + raw, server_name=server_name, file=file)):
        try:
            message = Message.decode(data)
        except MessageError:
            continue
        for value in message.options.values():
            options.names(value)
            options.addresses(value)
            list(options.classless_routes(value))
            list(options.static_routes(value))
            options.text(value)


@given(st.dictionaries(st.integers(1, 254).filter(lambda code: code not in (52, 53)), st.binary(max_size=600)))
def test_options_are_unchanged_after_encoding_and_decoding(written: dict[int, bytes]) -> None:
    data = bytearray(Message(MessageType.ACK, 1, MAC, options=written).encode())
    data[0] = 2
    assert Message.decode(bytes(data)).options == written


def test_compressed_search_lists_are_decoded() -> None:
    """The example of RFC 3397: eng.apple.com., marketing.apple.com."""
    data = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04"
    assert options.names(data) == ["eng.apple.com", "marketing.apple.com"]
    assert options.names(b"\x03eng\xc0\x00") == []  # a pointer to the start of the same name


@pytest.mark.parametrize(
    ("data", "routes"),
    [
        ([0, 10, 0, 0, 1], [("0.0.0.0/0", "10.0.0.1", None)]),
        (
            [8, 10, 10, 0, 0, 1, 24, 10, 0, 5, 10, 0, 0, 2],
            [("10.0.0.0/8", "10.0.0.1", None), ("10.0.5.0/24", "10.0.0.2", None)],
        ),
        ([17, 10, 1, 255, 10, 0, 0, 1], [("10.1.128.0/17", "10.0.0.1", None)]),
        ([32, 10, 1, 2, 3, 0, 0, 0, 0], [("10.1.2.3/32", "0.0.0.0", 253)]),
        ([33, 10, 1, 2, 3, 4, 0, 0, 0, 0], []),
        ([24, 10, 1], []),
    ],
)
def test_classless_routes(data: list[int], routes: list[tuple[str, str, int | None]]) -> None:
    wanted = [Route(ip_interface(dst), IPv4Address(gw), scope=scope) for dst, gw, scope in routes]
    assert list(options.classless_routes(bytes(data))) == wanted


@pytest.mark.parametrize(
    ("name", "code"), [("routers", 3), ("dhcp-client-identifier", 61), ("121", 121), ("user-class", 77), ("254", 254)]
)
def test_option_codes_are_found_by_name_or_number(name: str, code: int) -> None:
    assert options.code_of(name) == code


@pytest.mark.parametrize("name", ["", "0", "255", "-1", "1.5", "٣", "Routers"])
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a DHCP option"):
        options.code_of(name)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"example.org", "example.org"),
        (b"example.org.\0", "example.org"),
        (b"a b", ""),
        (b"org\nnameserver 6.6.6.6", ""),
    ],
)
def test_domains_unsafe_in_resolv_conf_are_dropped(data: bytes, name: str) -> None:
    assert options.domain(data) == name
    label = data.rstrip(b".\0")
    assert options.names(bytes([len(label)]) + label + b"\0") == ([name] if name else [])


def test_unprintable_characters_in_texts_of_servers_are_replaced() -> None:
    assert options.text(b"no\x1b[2Jlease\xff\0") == "no\ufffd[2Jlease\ufffd"
