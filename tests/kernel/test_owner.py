"""Ownership labels."""

from pycni.kernel.owner import Owner, Stale, is_label

OWNER = Owner("mynet", "cid-1", "eth0")


def test_key_is_that_of_the_go_plugins_nftables_comments() -> None:
    """docs/reference/plugins.md#ownership-labels."""
    assert OWNER.key == "d23676b4f2d9fe04-94e6bc2af6ffc8dc"
    assert OWNER.label == "d23676b4f2d9fe04-94e6bc2af6ffc8dc, net: mynet, if: eth0, id: cid-1"


def test_host_interface_name_is_valid_and_distinct() -> None:
    assert OWNER.host_ifname.startswith("veth")
    assert len(OWNER.host_ifname) == 15
    assert OWNER.host_ifname != Owner("mynet", "cid-1", "eth1").host_ifname


def test_long_labels_fit_into_a_comment() -> None:
    long = Owner("n" * 300, "i" * 300, "eth0")
    assert len(long.label) == 128
    assert long.owns(long.label)


def test_owner_owns_only_the_label_of_its_attachment() -> None:
    assert OWNER.owns(OWNER.label)
    for other in (Owner("mynet", "cid-1", "eth1"), Owner("mynet", "cid-2", "eth0"), Owner("other", "cid-1", "eth0")):
        assert not OWNER.owns(other.label)
    assert not OWNER.owns("")


def test_stale_owns_labels_of_the_network_without_a_valid_attachment() -> None:
    dead = Owner("mynet", "cid-9", "eth0")
    stale = Stale("mynet", [OWNER])
    assert stale.owns(dead.label)
    assert not stale.owns(OWNER.label)
    assert not stale.owns(Owner("other", "cid-9", "eth0").label)
    assert not stale.owns("a comment of another program")


def test_other_texts_are_no_labels() -> None:
    assert is_label(OWNER.label)
    assert not is_label("uplink to rack 7")
