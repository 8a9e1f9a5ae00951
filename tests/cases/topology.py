"""The testbed of one case: namespaces of a host and two containers, a scratch directory, and plugins that log calls."""

import base64
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

RECORDER = Path(__file__).parents[1] / "data" / "recorder"
WORK = Path("/run/proto-work")
CACHE = Path("/var/lib/cni")
_NEWNET = 0x40000000
_TIMEOUT = 60
_libc = ctypes.CDLL(None, use_errno=True)


class SkipError(Exception):
    """The case cannot run here, for the reason in the message."""


class Testbed:
    """The namespaces proto-h, proto-c and proto-d of one case. Use it as a context manager."""

    def __init__(self, number: int, bin_directory: Path, plugin: str) -> None:
        self.plugin, self.bin = plugin, bin_directory
        self.host, self.container, self.container2 = (f"proto-{letter}{number}" for letter in "hcd")
        self.recorders, self.conf, self.log = WORK / "recbin", WORK / "net.d", WORK / "rec.log"
        self.saved = {}

    def __enter__(self) -> Self:
        for directory in (CACHE, WORK):
            directory.mkdir(parents=True, exist_ok=True)
            for entry in directory.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
        for name in (self.host, self.container, self.container2):
            subprocess.run(["ip", "netns", "add", name], check=True)
        self.host_fd = os.open(f"/run/netns/{self.host}", os.O_RDONLY)
        subprocess.run(["ip", "-n", self.host, "link", "set", "lo", "up"], check=True)
        self.recorders.mkdir()
        for name in ("p1", "p2", "p3", "recipam"):
            shutil.copy(RECORDER, self.recorders / name)
        self.conf.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.host_fd)
        for name in (self.host, self.container, self.container2):
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def fill(self, value: Any) -> Any:
        """Return the value with its placeholders replaced; {"$result": NAME} is a result that a step saved."""
        if isinstance(value, str):
            for placeholder, text in self._placeholders():
                value = value.replace(placeholder, text)
            return value
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            if set(value) == {"$result"}:
                return self.saved[value["$result"]]
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        return value

    def _placeholders(self) -> tuple[tuple[str, str], ...]:
        netns = f"/run/netns/{self.container}"
        return (
            ("@NETNS@", netns),
            ("@NETNS2@", f"/run/netns/{self.container2}"),
            ("@HOSTNS@", self.host),
            ("@BIN@", str(self.bin)),
            ("@RECBIN@", str(self.recorders)),
            ("@WORK@", str(WORK)),
            ("@PLUGIN@", self.plugin or ""),
            ("@CONF@", str(self.conf)),
            ("@NSNAME@", self.container),
            ("@CID@", f"cnitool-{hashlib.sha512(netns.encode()).digest()[:10].hex()}"),
        )

    def write(self, files: dict[str, Any]) -> None:
        """Write files; delete those whose content is None."""
        for name, content in self.fill(files).items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))

    def run(
        self,
        argv: list[Any],
        env: dict[str, str],
        stdin: bytes = b"",
        *,
        cwd: str | None = None,
        stdin_path: str | None = None,
        stdout_path: str | None = None,
    ) -> dict[str, Any]:
        """Run a command in the host's namespace and return exit status, output, recorded calls and seconds."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "REC_LOG": str(self.log)} | env
        environment = {key: value for key, value in environment.items() if value is not None}
        started = time.monotonic()
        source = os.open(stdin_path, os.O_RDONLY) if stdin_path else subprocess.PIPE
        sink = os.open(stdout_path, os.O_WRONLY) if stdout_path else subprocess.PIPE
        with subprocess.Popen(
            argv, stdin=source, stdout=sink, stderr=subprocess.PIPE, env=environment, cwd=cwd or WORK,
            preexec_fn=self._enter_host,  # noqa: PLW1509 - there are no threads here
        ) as process:  # fmt: skip
            try:
                stdout, stderr = process.communicate(None if stdin_path else stdin, timeout=_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = b"", b"[timed out]"
        for descriptor in (source, sink):
            if descriptor != subprocess.PIPE:
                os.close(descriptor)
        return {
            "exit": process.returncode,
            "stdout": (stdout or b"").decode(errors="replace"),
            "stderr": stderr.decode(errors="replace"),
            "calls": self._calls(),
            "seconds": round(time.monotonic() - started, 3),
        }

    def _enter_host(self) -> None:
        if _libc.setns(self.host_fd, _NEWNET) != 0:
            os._exit(126)

    def _calls(self) -> list[dict[str, Any]]:
        with suppress(FileNotFoundError):
            lines = self.log.read_text().splitlines()
            self.log.unlink()
            return [json.loads(line) for line in lines]
        return []


def stdin_of(testbed: Testbed, step: dict[str, Any]) -> bytes:
    """Return the bytes on stdin of a step."""
    if "stdin_b64" in step:
        return base64.b64decode(step["stdin_b64"])
    if "stdin_json" in step:
        return json.dumps(testbed.fill(step["stdin_json"])).encode()
    return testbed.fill(step.get("stdin", "")).encode("utf-8", "surrogateescape")
