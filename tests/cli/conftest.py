"""The command as a program: run in this process, with what it printed and how it ended."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pycni.cli import main

RECORDER = Path(__file__).parents[1] / "data" / "recorder"


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


class Desk:
    """Directories for configurations, recorders and the cache, and the command that is pointed at them."""

    def __init__(self, directory: Path, run: Callable[..., Done]) -> None:
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
        """Put a container runtime on PATH, before any that the machine has."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\necho {name} version {version}\n")
        program.chmod(0o755)

    def write(self, name: str, content: Any) -> Path:
        """A file of the configuration directory."""
        file = self.conf / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def pycni(self, *arguments: str) -> Done:
        """Run the command."""
        return self._run(*arguments)

    def calls(self) -> list[dict[str, Any]]:
        """What the recorders wrote down since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    desk = Desk(tmp_path, run)
    for name in ("CNI_ARGS", "CAP_ARGS", "CNI_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETCONFPATH", str(desk.conf))
    monkeypatch.setenv("CNI_PATH", str(desk.bin))
    monkeypatch.setenv("REC_LOG", str(desk.log))
    monkeypatch.setenv("PATH", f"{desk.programs}:{os.environ['PATH']}")
    return desk
