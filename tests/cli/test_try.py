"""pycni try, and the demo: whole lives in a throwaway host, shown to a person."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


def test_an_example_lives_a_whole_life() -> None:
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


def test_options_reach_the_plugins(tmp_path: Path) -> None:
    plugin = {"type": "bridge", "capabilities": {"mac": True}, "cniVersion": "0.3.1", "name": "single"}
    (tmp_path / "single.conf").write_text(json.dumps(plugin))
    mac = "02:00:00:00:00:07"
    done = run("-m", "pycni", "try", tmp_path / "single.conf", "--cap", f'mac="{mac}"', "--ifname", "net7")
    assert done.returncode == 0, done.stderr
    assert f"net7  {mac}" in done.stdout
    assert "CHECK" not in done.stdout  # 0.3.1 has none


def test_a_failure_is_shown_with_its_cause_and_nothing_is_left(tmp_path: Path) -> None:
    plugins = [{"type": "bridge"}, {"type": "bridge", "vlan": 9999}]
    (tmp_path / "bad.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "bad", "plugins": plugins}))
    done = run("-m", "pycni", "try", tmp_path / "bad.conflist")
    assert done.returncode == 1
    assert "invalid VLAN ID 9999" in done.stderr


def test_the_machines_own_network_and_state_are_not_touched() -> None:
    def world() -> tuple[str, bool]:
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
        return links, Path("/var/lib/cni").exists()

    before = world()
    assert run("-m", "pycni", "try", EXAMPLES / "10-mynet.conflist").returncode == 0
    assert world() == before


@pytest.mark.exhaustive
def test_the_demo_of_the_readme_succeeds() -> None:
    done = run(EXAMPLES / "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing of the containers is left" in done.stdout
    assert done.stdout.count("✓") >= 21
    assert "outside asks 192.0.2.1:8080" in done.stdout
    assert "✗" not in done.stdout


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.conflist")), ids=lambda file: file.name)
def test_every_example_is_valid(file: Path, bin_directory: Path) -> None:
    done = run("-m", "pycni", "validate", file, "--path", bin_directory)
    assert (done.returncode, done.stdout) == (0, "")
