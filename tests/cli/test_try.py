"""`pycni try` and the demo: ADD, CHECK and DEL in throwaway namespaces, shown step by step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
STATIC = {"type": "static", "addresses": [{"address": "10.1.0.2/24"}]}


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


def test_try_runs_add_check_and_del_of_the_example() -> None:
    done = run("-m", "pycni", "try", EXAMPLES / "10-mynet.conflist")
    assert done.returncode == 0, done.stderr
    for words in (
        "create bridge cni0",
        "reserve 10.22.0.2, fd00:22::2",
        "masquerade 10.22.0.2",
        "ADD took",
        "CHECK took",
    ):
        assert words in done.stdout
    assert "DEL left nothing of the attachment" in done.stdout
    assert "10.22.0.2/24  gateway 10.22.0.1" in done.stdout


def test_try_passes_options_to_the_plugins(tmp_path: Path) -> None:
    plugin = {"type": "bridge", "capabilities": {"mac": True}, "cniVersion": "0.3.1", "name": "single"}
    (tmp_path / "single.conf").write_text(json.dumps(plugin))
    mac = "02:00:00:00:00:07"
    done = run("-m", "pycni", "try", tmp_path / "single.conf", "--cap", f'mac="{mac}"', "--ifname", "net7")
    assert done.returncode == 0, done.stderr
    assert f"net7  {mac}" in done.stdout
    assert "CHECK" not in done.stdout  # CNI 0.3.1 has no CHECK


def test_try_shows_the_cause_of_a_failure(tmp_path: Path) -> None:
    plugins = [{"type": "bridge"}, {"type": "bridge", "vlan": 9999}]
    (tmp_path / "bad.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "bad", "plugins": plugins}))
    done = run("-m", "pycni", "try", tmp_path / "bad.conflist")
    assert done.returncode == 1
    assert "invalid VLAN ID 9999" in done.stderr


def test_try_leaves_the_hosts_network_and_state_untouched() -> None:
    def host() -> tuple[str, bool]:
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
        return links, Path("/var/lib/cni").exists()

    before = host()
    assert run("-m", "pycni", "try", EXAMPLES / "10-mynet.conflist").returncode == 0
    assert host() == before


@pytest.mark.parametrize(
    ("plugin", "notes"),
    [
        ({"type": "macvlan", "master": "ens1", "ipam": STATIC}, ["created link ens1 on the host"]),
        ({"type": "macvlan", "ipam": STATIC}, ["created link eth1 on the host"]),
        ({"type": "macvlan", "master": "net0", "linkInContainer": True}, ["created link net0 in the container"]),
        ({"type": "host-device", "device": "ens1"}, ["created link ens1 on the host"]),
        ({"type": "bridge", "ipam": {"type": "dhcp"}}, ["created link eth1 on the host", "started a DHCP server"]),
        ({"type": "flannel"}, ["created /run/flannel/subnet.env"]),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_try_creates_what_the_network_refers_to(plugin: dict[str, Any], notes: list[str], tmp_path: Path) -> None:
    file = tmp_path / "10.conflist"
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}))
    done = run("-m", "pycni", "try", file)
    assert done.returncode == 0, done.stdout + done.stderr
    for note in notes:
        assert note in done.stdout
    assert "DEL left nothing of the attachment" in done.stdout


def test_try_runs_without_iproute2_and_says_what_it_does_not_compare() -> None:
    hide = "for tool in ip tc nft; do for d in /usr/sbin /usr/bin /sbin /bin; do [ ! -e $d/$tool ] || "
    hide += "mount --bind /dev/null $d/$tool; done; done"
    command = f"{hide}; exec {sys.executable} -m pycni try {EXAMPLES / '10-mynet.conflist'}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not compared before and after: ip, tc, nft not found" in done.stdout
    assert "DEL took" in done.stdout


def test_hiding_the_state_directories_keeps_their_siblings_visible() -> None:
    script = f"""
        mount -t tmpfs tmpfs /var/lib
        mkdir /var/lib/env && echo here > /var/lib/env/file && ln -s env /var/lib/link
        {sys.executable} -c 'from pathlib import Path
from pycni.kernel.netns import throwaway
throwaway.hide_state()
print(Path("/var/lib/link/file").read_text().strip(), [*Path("/var/lib/cni").iterdir()])'
    """
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("here []\n", "")


@pytest.mark.exhaustive
def test_demo_of_the_readme_succeeds() -> None:
    done = run(EXAMPLES / "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no state is left" in done.stdout
    assert done.stdout.count("✓") >= 21
    assert "request from outside to 192.0.2.1:8080" in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.conflist")), ids=lambda file: file.name)
def test_every_example_is_valid(file: Path, bin_directory: Path) -> None:
    done = run("-m", "pycni", "validate", file, "--path", bin_directory)
    assert (done.returncode, done.stdout) == (0, "")
