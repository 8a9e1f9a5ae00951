"""The container image: Debian's static busybox as a docker archive, under two names."""

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

NAMES = ("localhost/pycni-busybox:1", "localhost/pycni-pause:1")
APPLETS = ("cat", "echo", "httpd", "ip", "ls", "nc", "ping", "printf", "sh", "sleep")
# A shell without a trap ignores SIGTERM when it is PID 1.
PAUSE = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait; done"]


def add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    archive.addfile(entry, io.BytesIO(content))


def layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for directory in ("bin", "dev", "etc", "proc", "sys", "run", "tmp", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        add(archive, "bin/busybox", Path("/usr/bin/busybox").read_bytes(), mode=0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        add(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        add(archive, "etc/group", b"root:x:0:\n")
        add(archive, "www/index.html", b"hello-pycni\n")
    return packed.getvalue()


def write(path: str, content: bytes, names: tuple[str, ...], **config: object) -> None:
    """Write a docker archive with one layer and this container configuration."""
    layer_id = hashlib.sha256(content).hexdigest()
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"WorkingDir": "/", **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_id}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": names, "Layers": [f"{layer_id}/layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        add(archive, f"{layer_id}/layer.tar", content)
        add(archive, "config.json", json.dumps(image).encode())
        add(archive, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    write(sys.argv[1], layer(), NAMES, Env=["PATH=/bin"], Cmd=PAUSE)
