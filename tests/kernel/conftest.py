"""What tests of the kernel's rooms share."""

from pathlib import Path

import pytest


@pytest.fixture(params=["nft", "legacy"])
def iptables(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both variants of iptables, each as the one that the machine has chosen."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-restore", "-save"):
            (programs / f"{family}{suffix}").symlink_to(f"/usr/sbin/xtables-{request.param}-multi")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # The legacy one takes a lock for the whole machine.
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    return str(request.param)
