"""Fixtures that run the `pycni` command in the test process."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pycni.cli import main

RECORDER = Path(__file__).parents[1] / "data" / "recorder"


class CommandResult(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


class Workspace:
    """Directories for configurations, recorders and the cache, and the command that uses them."""

    def __init__(self, directory: Path, run: Callable[..., CommandResult]) -> None:
        self.conf, self.bin, self.cache = directory / "net.d", directory / "bin", directory / "cache"
        self.log = directory / "rec.log"
        self._run = run
        self.conf.mkdir()
        self.bin.mkdir()
        for name in ("p1", "p2"):
            shutil.copy(RECORDER, self.bin / name)
        self.programs = directory / "programs"
        self.programs.mkdir()
        for name, version in {"containerd": "2.1.0", "nerdctl": "2.0.0", "podman": "5.0.0"}.items():
            self.install_runtime(name, version)

    def install_runtime(self, name: str, version: str) -> None:
        """Put a container runtime on PATH, before those of the machine."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\necho {name} version {version}\n")
        program.chmod(0o755)

    def write(self, name: str, content: Any) -> Path:
        """Write a file of the configuration directory."""
        file = self.conf / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def pycni(self, *arguments: str) -> CommandResult:
        """Run the command."""
        return self._run(*arguments)

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls that the recorders have logged since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workspace:
    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        printed = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), printed.out, printed.err)

    workspace = Workspace(tmp_path, run)
    for name in ("CNI_ARGS", "CAP_ARGS", "CNI_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETCONFPATH", str(workspace.conf))
    monkeypatch.setenv("CNI_PATH", str(workspace.bin))
    monkeypatch.setenv("REC_LOG", str(workspace.log))
    monkeypatch.setenv("PATH", f"{workspace.programs}:{os.environ['PATH']}")
    return workspace
