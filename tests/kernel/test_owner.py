"""Labels: whose a thing is."""

from pycni.kernel.owner import Owner, Stale, is_label

MINE = Owner("mynet", "cid-1", "eth0")


def test_the_key_is_that_of_the_go_plugins_nftables_comments() -> None:
    """F-53, recomputed for the example of the reference."""
    assert MINE.key == "d23676b4f2d9fe04-94e6bc2af6ffc8dc"
    assert MINE.label == "d23676b4f2d9fe04-94e6bc2af6ffc8dc, net: mynet, if: eth0, id: cid-1"


def test_the_host_interface_has_a_name_that_the_kernel_takes() -> None:
    assert MINE.host_ifname.startswith("veth")
    assert len(MINE.host_ifname) == 15
    assert MINE.host_ifname != Owner("mynet", "cid-1", "eth1").host_ifname


def test_labels_fit_into_a_comment_whatever_the_names() -> None:
    long = Owner("n" * 300, "i" * 300, "eth0")
    assert len(long.label) == 128
    assert long.owns(long.label)


def test_owning_is_by_attachment() -> None:
    assert MINE.owns(MINE.label)
    for other in (Owner("mynet", "cid-1", "eth1"), Owner("mynet", "cid-2", "eth0"), Owner("other", "cid-1", "eth0")):
        assert not MINE.owns(other.label)
    assert not MINE.owns("")


def test_stale_is_what_nobody_valid_owns_on_this_network() -> None:
    dead = Owner("mynet", "cid-9", "eth0")
    stale = Stale("mynet", [MINE])
    assert stale.owns(dead.label)
    assert not stale.owns(MINE.label)
    assert not stale.owns(Owner("other", "cid-9", "eth0").label)
    assert not stale.owns("somebody's own words")


def test_only_labels_are_labels() -> None:
    assert is_label(MINE.label)
    assert not is_label("uplink to rack 7")
