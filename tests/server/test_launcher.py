"""Tests of the launcher: each call is answered once and executed once, even if the server fails."""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pycni.server import wire
from pycni.testing import wait_for

Stage = Any
FakeServer = Callable[[Callable[[socket.socket], None]], None]

VERBS = [
    "ADD",
    "DEL",
    *(pytest.param(verb, marks=pytest.mark.exhaustive) for verb in ("CHECK", "GC", "STATUS", "VERSION")),
]


def receive_call(connection: socket.socket) -> wire.Call:
    connection.settimeout(20)
    call = wire.receive(connection)
    call.close()
    return call


def oneshot_was_called(done: Any, size: int | None = None) -> bool:
    text, count = done.stdout.decode().split()
    return done.returncode == 0 and text == "one-shot" and size in (None, int(count))


@pytest.mark.parametrize("command", VERBS)
def test_one_shot_answers_without_a_server(stage: Stage, command: str) -> None:
    stage.replace_oneshots()
    assert oneshot_was_called(stage.run(command))


def test_one_shot_receives_all_of_stdin(stage: Stage) -> None:
    stage.replace_oneshots()
    for size in (0, 1, 65535, 65536, 16 << 20, (16 << 20) + 1):
        assert oneshot_was_called(stage.run("ADD", b"x" * size), size)


def test_real_one_shot_answers_like_the_server(stage: Stage) -> None:
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["ips"]) == (0, [{"address": "10.1.0.2/24"}])


def test_missing_script_is_a_cni_error(stage: Stage) -> None:
    (stage.scripts / "static").unlink()
    done = stage.run("ADD")
    assert done.returncode == 1
    assert "pycni is not installed completely" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("command", VERBS)
def test_refused_call_falls_back_to_the_one_shot(stage: Stage, fake_server: FakeServer, command: str) -> None:
    def refuse(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(wire.REFUSED)

    fake_server(refuse)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("read", [pytest.param("a part", marks=pytest.mark.exhaustive), "all"])
@pytest.mark.parametrize("command", VERBS)
def test_server_that_dies_before_accepting_falls_back_to_the_one_shot(
    stage: Stage, fake_server: FakeServer, command: str, read: str
) -> None:
    fake_server(lambda connection: (receive_call(connection) if read == "all" else connection.recv(4)) and None)
    assert oneshot_was_called(stage.run(command))


def test_server_that_dies_after_accepting_add_is_error_11(stage: Stage, fake_server: FakeServer) -> None:
    def die(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(wire.ACCEPTED)

    fake_server(die)
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)
    assert not stage.calls.exists()


@pytest.mark.parametrize("command", VERBS)
def test_call_refused_after_acceptance_falls_back_to_the_one_shot(
    stage: Stage, fake_server: FakeServer, command: str
) -> None:
    """The launcher cancelled the call at the moment when the server accepted it."""

    def refuse(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(wire.ACCEPTED + wire.REFUSED)

    fake_server(refuse)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("command", ["CHECK", "DEL", "GC", "STATUS", "VERSION"])
def test_server_that_dies_after_accepting_an_idempotent_verb_falls_back_to_the_one_shot(
    stage: Stage, fake_server: FakeServer, command: str
) -> None:
    def die(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(wire.ACCEPTED + wire.DONE + struct.pack("=III", 0, 100, 0) + b"half")

    fake_server(die)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("garbage", [b"\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64)])
def test_invalid_acceptance_falls_back_to_the_one_shot(stage: Stage, fake_server: FakeServer, garbage: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(garbage)

    fake_server(answer)
    assert oneshot_was_called(stage.run("ADD"))


@pytest.mark.parametrize("begin", [b"", wire.DONE])
def test_invalid_answer_to_add_is_error_11(stage: Stage, fake_server: FakeServer, begin: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        receive_call(connection)
        connection.sendall(wire.ACCEPTED + begin + b"\xff" * 64)

    fake_server(answer)
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)


@pytest.mark.exhaustive
def test_server_that_hangs_before_accepting_is_abandoned(stage: Stage, fake_server: FakeServer) -> None:
    """If the server accepts the call later, it finds that the launcher has cancelled it."""
    accepted: list[bool] = []

    def hang(connection: socket.socket) -> None:
        receive_call(connection)
        assert connection.recv(1) == b""  # the launcher has cancelled the call
        connection.settimeout(None)
        try:
            accepted.append(wire.accept_call(connection))
            connection.sendall(wire.REFUSED)
        except BrokenPipeError:  # the launcher has exited
            accepted.append(False)

    fake_server(hang)
    assert oneshot_was_called(stage.run("ADD"))
    wait_for(lambda: accepted, "the server to accept")
    assert not any(accepted)


def test_launcher_waits_for_a_slow_reader_and_a_slow_answer(stage: Stage, fake_server: FakeServer) -> None:
    def slow(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        call = receive_call(connection)
        connection.sendall(wire.ACCEPTED + wire.DONE)
        answer = struct.pack("=III", 3, len(call.stdin), 4) + call.stdin + b"warn"
        for start in range(0, len(answer), 70_000):
            connection.sendall(answer[start : start + 70_000])

    fake_server(slow)
    done = stage.run("ADD", b"y" * wire.STDIN_MAX)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, wire.STDIN_MAX, b"warn")


def test_server_receives_the_complete_call(stage: Stage, fake_server: FakeServer) -> None:
    calls: list[wire.Call] = []

    def record(connection: socket.socket) -> None:
        calls.append(receive_call(connection))
        connection.sendall(wire.ACCEPTED)
        wire.send_answer(connection, 0, b"{}", b"")

    fake_server(record)
    done = stage.run("ADD", plugin="bridge", TRACEPARENT="00-abc", EMPTY="", CNI_ARGS="A=b=c")
    assert (done.returncode, done.stdout) == (0, b"{}")
    (call,) = calls
    assert (call.type, call.stdin[:1]) == ("bridge", b"{")
    assert (call.env["TRACEPARENT"], call.env["EMPTY"], call.env["CNI_ARGS"]) == ("00-abc", "", "A=b=c")
    assert call.container is None  # /nowhere cannot be opened


def test_regular_file_in_place_of_the_socket_falls_back_to_the_one_shot(stage: Stage) -> None:
    stage.replace_oneshots()
    stage.socket.parent.mkdir()
    stage.socket.write_text("no socket at all")
    assert oneshot_was_called(stage.run("ADD"))


@pytest.fixture
def listener(stage: Stage) -> Iterator[socket.socket]:
    """Return a socket that is bound to the address of the server and does not listen yet."""
    stage.replace_oneshots()
    stage.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(stage.socket))
        yield made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.usefixtures("other_users")
def test_server_of_another_user_receives_no_data(stage: Stage, listener: socket.socket) -> None:
    os.seteuid(65534)  # the kernel records the credentials at listen(2)
    try:
        listener.listen()
    finally:
        os.seteuid(0)
    assert oneshot_was_called(stage.run("ADD"))
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(1) == b""


def test_launcher_does_not_wait_for_a_server_with_a_full_backlog(stage: Stage, listener: socket.socket) -> None:
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(stage.socket))
        assert oneshot_was_called(stage.run("ADD"))
