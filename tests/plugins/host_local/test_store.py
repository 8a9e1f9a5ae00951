"""The store on a real directory: crashes, locks, reads per call, and concurrent callers."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pycni_plugins.host_local.attachment_id import AttachmentId
from pycni_plugins.host_local.store import AddressStore

from pycni.protocol.errors import CniError

Call = Callable[..., Any]
V4 = {"subnet": "10.1.0.0/16"}
_opened: list[str] | None = None


def _watch_opens(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_watch_opens)


@contextmanager
def opened() -> Iterator[list[str]]:
    """Yield the list of files that are opened inside the block."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be removed
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def allocation_files(paths: list[str]) -> list[str]:
    return [path for path in paths if path.startswith("10.")]


def fill(store: Path, number: int) -> None:
    """Write the files that the Go plugin leaves after this number of ADDs."""
    store.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        (store / f"10.1.{2 + i // 250}.{1 + i % 250}").write_bytes(f"go{i}\r\neth0".encode())


def in_a_process(work: Callable[[], None]) -> int:
    """Run `work` in a child process and return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a forked child must not go on with the tests
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("content", "holder"),
    [
        (b"c1\r\neth0", AttachmentId("c1", "eth0")),
        (b" c1\r\neth0\n", AttachmentId("c1", "eth0")),
        (b"c1", AttachmentId("c1")),
        (b"c1\n", AttachmentId("c1")),
        (b"", None),
        (b"c1\r\n", AttachmentId("c1")),
        (b"\r\neth0", AttachmentId("eth0")),  # Go strips white space first
        (b"c1\neth0", None),
        (b"another program", None),
        (b"\xff\xfe\r\neth0", None),
    ],
)
def test_holder_is_parsed_from_the_content_of_an_allocation_file(content: bytes, holder: AttachmentId | None) -> None:
    assert AttachmentId.parse(content) == holder


@pytest.mark.direct
def test_crash_during_add_leaves_a_complete_file_or_none(
    host_local: Call, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Go: the file is created first and written afterwards. A crash in between loses the address permanently."""
    host_local("ADD", "c1", ipam=V4)
    for dies_in in ("write", "link"):
        monkeypatch.setattr(os, dies_in, lambda *_, **__: os._exit(9))
        assert in_a_process(lambda: host_local("ADD", "c2", ipam=V4)) == 9
        monkeypatch.undo()
        assert {file.name for file in store.iterdir()} == {"10.1.0.2", "last_reserved_ip.0", "lock"}
    assert host_local("ADD", "c2", ipam=V4)["ips"][0]["address"] == "10.1.0.3/16"


def test_old_empty_file_is_reused_when_no_other_address_is_free(host_local: Call, store: Path) -> None:
    full = {"subnet": "10.1.0.0/29"}
    for i in range(4):
        host_local("ADD", f"c{i}", ipam=full)
    (store / "10.1.0.6").touch()
    with pytest.raises(CniError, match="no IP addresses available"):
        host_local("ADD", "c5", ipam=full)  # a new empty file may be about to be written
    with pytest.raises(CniError, match="no IP addresses available"):
        host_local("STATUS", ipam=full)
    long_ago = (store / "10.1.0.6").stat().st_mtime - 3600
    os.utime(store / "10.1.0.6", (long_ago, long_ago))
    host_local("STATUS", ipam=full)
    assert host_local("ADD", "c5", ipam=full)["ips"][0]["address"] == "10.1.0.6/29"


def test_add_works_on_a_file_system_without_o_tmpfile(
    host_local: Call, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_open = os.open

    def open_named_files(path: str, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return os_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", open_named_files)
    host_local("ADD", "c1", ipam=V4)
    assert (store / "10.1.0.2").read_bytes() == b"c1\r\neth0"
    assert oct((store / "10.1.0.2").stat().st_mode) == "0o100600"


def test_lock_timeout_error_names_the_lock_and_the_process_that_holds_it(store: Path) -> None:
    store.mkdir(parents=True)
    with open(store / "lock", "w") as lock, AddressStore(str(store.parent), "mynet") as waiting:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CniError) as caught, waiting.locked(timeout=0):
            pass
        assert caught.value.code == 11
        holder = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
        assert caught.value.msg == f"host-local waited 0 s for the lock of {store}, held by {holder}"
        fcntl.flock(lock, fcntl.LOCK_UN)
        with waiting.locked(timeout=0):
            pass


def test_threads_of_one_process_exclude_each_other(store: Path) -> None:
    store.mkdir(parents=True)
    inside: list[int] = []

    def visit(number: int) -> int:
        with AddressStore(str(store.parent), "mynet") as one, one.locked():
            inside.append(number)
            for _ in range(50):
                os.sched_yield()  # gives the other threads a chance to enter
            together = len(inside)
            inside.remove(number)
            return together

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(visit, range(40))) == {1}
    with (
        AddressStore(str(store.parent), "mynet") as one,
        AddressStore(str(store.parent), "mynet") as other,
        one.locked(),
    ):
        with pytest.raises(CniError, match=f"held by process {os.getpid()} ") as caught, other.locked(timeout=0):
            pass
        assert caught.value.code == 11


def test_lock_is_released_after_an_exception(store: Path) -> None:
    store.mkdir(parents=True)
    with AddressStore(str(store.parent), "mynet") as one, AddressStore(str(store.parent), "mynet") as other:
        with pytest.raises(ZeroDivisionError), one.locked():
            _ = 1 / 0
        with other.locked(timeout=0):
            pass


def test_only_gc_reads_the_files_of_other_containers(host_local: Call, store: Path) -> None:
    """Go: every ADD and DEL opens each file of the store once or twice."""
    fill(store, 500)
    host_local("ADD", "c0", ipam=V4)  # the first call after a change by another program reads everything once
    with opened() as during_add:
        result = host_local("ADD", "c1", ipam=V4)
    assert allocation_files(during_add) == []
    with opened() as during_check:
        host_local("CHECK", "c1", ipam=V4, prevResult=result)
    assert allocation_files(during_check) == ["10.1.0.3"]
    with opened() as during_repeated_add, pytest.raises(CniError, match="duplicate allocation"):
        host_local("ADD", "c1", ipam=V4)
    assert set(allocation_files(during_repeated_add)) == {"10.1.0.3"}
    with opened() as during_del:
        host_local("DEL", "c1", ipam=V4)
    assert allocation_files(during_del) == ["10.1.0.3"]
    with opened() as during_second_del:
        host_local("DEL", "c1", ipam=V4)
    assert allocation_files(during_second_del) == []
    assert not (store / "10.1.0.3").exists()


def test_changes_by_another_program_are_read_once(host_local: Call, store: Path) -> None:
    host_local("ADD", "c0", ipam=V4)
    fill(store, 100)
    with opened() as first:
        host_local("ADD", "c1", ipam=V4)
    with opened() as second:
        host_local("ADD", "c2", ipam=V4)
    assert len(set(allocation_files(first))) == 101
    assert allocation_files(second) == []
    host_local("DEL", "go7", ipam=V4)
    assert not (store / "10.1.2.8").exists()


def test_change_immediately_after_an_own_change_is_detected(host_local: Call, store: Path) -> None:
    """The kernel's clock for file times advances in steps of milliseconds.

    The seal file distinguishes changes within one step.
    """
    for i in range(100):
        host_local("ADD", f"c{i}", ipam=V4)
        (store / f"10.1.9.{i}").write_bytes(f"go{i}\r\neth0".encode())
        host_local("DEL", f"go{i}", ipam=V4)
        assert not (store / f"10.1.9.{i}").exists()


def test_calls_work_without_a_writable_owner_index(host_local: Call, data_dir: Path, store: Path) -> None:
    data_dir.mkdir()
    os.mkfifo(data_dir / ".mynet.owners")
    host_local("ADD", "c1", ipam=V4)
    with pytest.raises(CniError, match="duplicate allocation"):
        host_local("ADD", "c1", ipam=V4)
    host_local("CHECK", "c1", ipam=V4)
    host_local("DEL", "c1", ipam=V4)
    assert not (store / "10.1.0.2").exists()


def test_invalid_owner_index_entry_is_ignored_and_removed(host_local: Call, data_dir: Path, store: Path) -> None:
    host_local("ADD", "c1", ipam=V4)
    cache = data_dir / ".mynet.owners"
    record = b"\0c1\r\neth0\t10.1.0.2"
    assert record in cache.read_bytes()
    other = b"10.1.0.3,../../../etc/passwd"
    cache.write_bytes(cache.read_bytes().replace(record + b"\0" * 20, record[:-8] + other))
    assert other in cache.read_bytes()
    host_local("DEL", "c1", ipam=V4)
    assert not (store / "10.1.0.2").exists()
    assert b"c1" not in cache.read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"pycni host-local owners 1 0 1024 -", b"pycni host-local owners 1 x y -"]
)
def test_damaged_owner_index_is_rewritten(host_local: Call, data_dir: Path, store: Path, content: bytes) -> None:
    host_local("ADD", "c1", ipam=V4)
    cache = data_dir / ".mynet.owners"
    cache.write_bytes(content)
    with pytest.raises(CniError, match="duplicate allocation"):
        host_local("ADD", "c1", ipam=V4)
    assert b"\0c1\r\neth0\t10.1.0.2" in cache.read_bytes()


def test_owner_index_of_another_boot_is_rewritten(
    host_local: Call, data_dir: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the machine may have lost a part of it."""
    host_local("ADD", "c1", ipam=V4)
    cache = data_dir / ".mynet.owners"
    cache.write_bytes(cache.read_bytes().replace(b"c1\r\neth0", b"\0" * 8))
    host_local("DEL", "c1", ipam=V4)
    assert (store / "10.1.0.2").exists(), "the cache is valid until the next boot"
    monkeypatch.setattr("pycni_plugins.host_local.owner_index._boot_id", lambda: "another")
    host_local("DEL", "c1", ipam=V4)
    assert not (store / "10.1.0.2").exists()


def test_owner_index_grows_with_the_store(host_local: Call, data_dir: Path, store: Path) -> None:
    store.mkdir(parents=True)
    for i in range(3000):
        (store / f"10.1.{i // 250 + 1}.{i % 250}").write_bytes(f"{i:064}\r\neth0".encode())
    for i in range(200):  # one container, so all in one bucket
        host_local("ADD", "c1", ifname=f"eth{i}", ipam=V4)
    with opened() as files:
        for i in (0, 199):
            host_local("DEL", "c1", ifname=f"eth{i}", ipam=V4)
    assert allocation_files(files) == ["10.1.0.2", "10.1.0.201"]


def test_owners_with_ids_longer_than_file_names_are_cached(host_local: Call, store: Path) -> None:
    host_local("ADD", "c" * 400, ipam=V4)
    with opened() as files:
        host_local("DEL", "c" * 400, ipam=V4)
    assert allocation_files(files) == ["10.1.0.2"]
    assert not (store / "10.1.0.2").exists()


def test_address_is_unavailable_if_any_other_file_has_its_name(host_local: Call, store: Path) -> None:
    store.mkdir(parents=True)
    (store / "10.1.0.2").write_text("another program")
    (store / "10.1.0.3").symlink_to("/nonexistent")
    (store / "10.1.0.4").mkdir()
    (store / "10.1.0.5").touch()
    os.mkfifo(store / "10.1.0.6")
    assert host_local("ADD", "c1", ipam=V4)["ips"][0]["address"] == "10.1.0.7/16"
    with pytest.raises(CniError) as caught:
        host_local("ADD", "c2", ipam=V4, cni_args="IP=10.1.0.2")
    assert (
        caught.value.details == f"it is reserved for an unknown owner: {store}/10.1.0.2 was not written by a CNI plugin"
    )


@pytest.mark.parametrize("note", ["", "bogus", "10.9.0.1", "fd00::1"])
def test_invalid_last_reserved_address_is_ignored(host_local: Call, store: Path, note: str) -> None:
    store.mkdir(parents=True)
    (store / "last_reserved_ip.0").write_text(note)
    assert host_local("ADD", ipam=V4)["ips"][0]["address"] == "10.1.0.2/16"


def test_shorter_last_reserved_address_overwrites_a_longer_one_completely(host_local: Call, store: Path) -> None:
    host_local("ADD", "c1", ipam=V4, cni_args="IP=10.1.200.200")
    host_local("ADD", "c2", ipam=V4, cni_args="IP=10.1.0.9")
    assert (store / "last_reserved_ip.0").read_text() == "10.1.0.9"


def test_32_concurrent_processes_get_32_addresses(host_local: Call, store: Path) -> None:
    start, go = os.pipe()
    children = []
    for i in range(32):
        pid = os.fork()
        if pid == 0:
            os.read(start, 1)
            try:
                host_local("ADD", f"c{i}", ipam={"subnet": "10.1.0.0/26"})
            except BaseException:  # noqa: BLE001 - a forked child must not go on with the tests
                os._exit(1)
            os._exit(0)
        children.append(pid)
    os.write(go, b"x" * 32)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    os.close(start)
    os.close(go)
    assert statuses == [0] * 32
    assert {file.read_bytes() for file in store.glob("10.*")} == {f"c{i}\r\neth0".encode() for i in range(32)}
    for i in range(32):
        host_local("DEL", f"c{i}", ipam=V4)
    assert list(store.glob("10.*")) == []
