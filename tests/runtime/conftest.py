"""Recorders: a plugin that logs how it is called, with directories for executables and the cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pycni.runtime import NetworkConfig, Runtime, RuntimeConf

RECORDER = Path(__file__).parents[1] / "data" / "recorder"


class Recorders:
    """Executables p1, p2, p3 and recipam that log their calls, and a cache directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.cache, self.log = directory / "bin", directory / "cache", directory / "rec.log"
        self.bin.mkdir()
        for name in ("p1", "p2", "p3", "recipam"):
            shutil.copy(RECORDER, self.bin / name)
        (self.bin / "noexec").write_text("")
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("REC_LOG", str(self.log))
        monkeypatch.setenv("REC_MARK", "inherited")

    def script(self, **plugins: Any) -> None:
        """Set the plugins' answers: script(p1={"ADD": {"stdout": ..., "exit": 1}})."""
        self.monkeypatch.setenv("REC_SCRIPT", json.dumps(plugins))

    def runtime(self, **options: Any) -> Runtime:
        return Runtime([str(self.bin)], cache_dir=self.cache, **options)

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls since the last time they were read."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        self.log.unlink()
        return [json.loads(line) for line in lines]

    def verbs(self) -> list[str]:
        return [f"{call['type']} {call['command']}" for call in self.calls()]

    def entries(self) -> dict[str, Any]:
        """Return the files of the cache by name, decoded if they contain JSON."""
        results = self.cache / "results"
        return {file.name: _json(file.read_text()) for file in results.iterdir()} if results.exists() else {}

    def write_entries(self, entries: dict[str, Any]) -> None:
        (self.cache / "results").mkdir(parents=True, exist_ok=True)
        for name, content in entries.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (self.cache / "results" / name).write_text(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.fixture
def recorders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorders:
    return Recorders(tmp_path, monkeypatch)


@pytest.fixture
def eth0() -> RuntimeConf:
    return RuntimeConf("c1", netns="/run/netns/x", ifname="eth0")


@pytest.fixture
def chain() -> NetworkConfig:
    """A network of three recorders."""
    return NetworkConfig.parse(
        json.dumps({"name": "n", "cniVersion": "1.1.0", "plugins": [{"type": f"p{i}"} for i in (1, 2, 3)]})
    )
