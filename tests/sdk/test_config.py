"""Tests of configurations: types are checked as in Go, case of keys and null are ignored, errors name the member."""

from typing import Any, Self

import pytest

from pycni.protocol.errors import ConfigError
from pycni.sdk import Address, Cidr, Field, Ifname, Mac, Model, NetConf, RouteField, model_validator


class Range(Model):
    subnet: Cidr
    gateway: Address | None = None


class Section(Model):
    type: str = ""
    ranges: tuple[tuple[Range, ...], ...] = ()
    routes: tuple[RouteField, ...] = ()


class Conf(NetConf):
    size: int = Field(7, ge=1)
    flag: bool = False
    names: tuple[str, ...] = ()
    sysctl: dict[str, str] = Field(default_factory=dict)
    link: Ifname = "eth0"
    mac: Mac = ""
    odd: str = Field("", alias="vlanID")
    section: Section = Section()

    @model_validator(mode="after")
    def _flag_needs_names(self) -> Self:
        if self.flag and not self.names:
            raise ValueError("flag needs names")
        return self


class Required(NetConf):
    mtu: int
    other: int = 3


def test_keys_match_in_any_case_and_the_last_one_wins() -> None:
    assert Conf.read({"SIZE": 1, "size": 2, "Size": 3, "VLANid": "x"}).size == 3
    assert Conf.read({"VLANid": "x"}).odd == "x"


def test_nested_keys_match_in_any_case() -> None:
    """containerd sends the names of Go fields inside runtimeConfig."""
    conf = Conf.read({"section": {"Ranges": [[{"SUBNET": "10.0.0.0/24", "GateWay": "10.0.0.1"}]]}})
    assert str(conf.section.ranges[0][0].subnet) == "10.0.0.0/24"
    assert str(conf.section.ranges[0][0].gateway) == "10.0.0.1"


def test_keys_of_a_map_are_unchanged() -> None:
    assert Conf.read({"sysctl": {"net.IPv4": "1", "net.ipv4": "2"}}).sysctl == {"net.IPv4": "1", "net.ipv4": "2"}


def test_null_is_absent_and_unknown_keys_are_ignored() -> None:
    assert Conf.read({"size": None, "names": None, "section": None, "podman": {"x": 1}}) == Conf()


@pytest.mark.parametrize("mac", ["02:00:5E:00:53:01", "02-00-5e-00-53-01", "0200.5e00.5301"])
def test_mac_is_accepted_in_every_notation(mac: str) -> None:
    assert Conf.read({"mac": mac}).mac == "02:00:5e:00:53:01"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"size": "7"}, 'size: Input should be a valid integer, not "7"'),
        ({"size": 7.0}, "size: Input should be a valid integer, not 7.0"),
        ({"size": True}, "size: Input should be a valid integer, not true"),
        ({"size": 0}, "size: Input should be greater than or equal to 1, not 0"),
        ({"flag": "true"}, 'flag: Input should be a valid boolean, not "true"'),
        ({"flag": 1}, "flag: Input should be a valid boolean, not 1"),
        ({"names": "x"}, 'names: Input should be a valid array, not "x"'),
        ({"names": ["a", 2]}, "names[1]: Input should be a valid string, not 2"),
        ({"link": "a/b"}, 'link: interface name contains / or : or whitespace characters: "a/b"'),
        ({"mac": "01:00:00:00:00:00"}, "mac: invalid MAC address"),
        ({"mac": "02.00.5e.00.53.01"}, "mac: invalid MAC address"),
        ({"flag": True}, "flag needs names"),
        (
            {"section": {"ranges": [[{"subnet": "10.0.0.0"}]]}},
            "section.ranges[0][0].subnet: invalid CIDR address: 10.0.0.0",
        ),
        ({"section": {"ranges": [[{}]]}}, "section.ranges[0][0].subnet: Field required"),
        ({"section": {"routes": [{"dst": "x"}]}}, "section.routes[0]: invalid CIDR address: x (a route.dst)"),
        ({"section": []}, "section: Input should be an object, not []"),
    ],
)
def test_error_names_the_invalid_member_and_value(document: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Conf.read(document)
    assert caught.value.code == 7
    assert caught.value.msg.startswith("failed to load netconf: ")
    assert complaint in caught.value.msg


def test_error_lists_all_invalid_members() -> None:
    with pytest.raises(ConfigError, match="size: .*; flag: "):
        Conf.read({"size": "7", "flag": 1})


def test_lenient_reading_keeps_valid_members() -> None:
    conf, complaints = Conf.read_leniently({"size": "7", "names": ["a"], "section": {"ranges": 5}, "vlanID": "x"})
    assert (conf.size, conf.names, conf.section, conf.odd) == (7, ("a",), Section(), "x")
    assert [complaint.split(":")[0] for complaint in complaints] == ["size", "section.ranges"]


def test_lenient_reading_ignores_rules_about_several_members() -> None:
    conf, complaints = Conf.read_leniently({"flag": True, "size": 9})
    assert (conf.flag, conf.size) == (True, 9)
    assert complaints == ["flag needs names"]


def test_lenient_reading_accepts_missing_required_members() -> None:
    conf, complaints = Required.read_leniently({"other": 5})
    assert (conf.mtu, conf.other) == (None, 5)
    assert complaints == ["mtu: Field required"]


def test_lenient_reading_of_a_valid_configuration_reports_nothing() -> None:
    assert Conf.read_leniently({"size": 9}) == (Conf.read({"size": 9}), [])


def test_equal_configurations_are_validated_once() -> None:
    first = Required.read({"mtu": 1400, "Other": 5, "prevResult": {"ips": []}})
    assert Required.read({"other": 5, "MTU": 1400}) == first  # order and case of keys do not matter
    assert Required.read({"mtu": 1400, "other": 5}) is first
    assert Required.read_leniently({"mtu": 1400, "other": 5})[0] is first
    assert Required.read({"mtu": 1400, "other": 6}) != first


def test_invalid_configuration_is_rejected_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="mtu: Field required"):
            Required.read({"other": 5})


class Nested(NetConf):
    sections: tuple[Section, ...] | None = None


class Changeable(Model):
    names: list[str] = Field(default_factory=list)


class WithChangeable(NetConf):
    deep: tuple[tuple[Changeable, ...], ...] = ()


def test_mutable_configurations_are_not_shared_between_calls() -> None:
    assert Nested.read({"sections": [{"type": "a"}]}) is Nested.read({"sections": [{"type": "a"}]})
    first = WithChangeable.read({"deep": [[{"names": ["a"]}]]})
    first.deep[0][0].names.append("b")
    assert WithChangeable.read({"deep": [[{"names": ["a"]}]]}).deep[0][0].names == ["a"]
    Conf.read({"sysctl": {"a": "1"}}).sysctl["a"] = "2"
    assert Conf.read({"sysctl": {"a": "1"}}).sysctl == {"a": "1"}
