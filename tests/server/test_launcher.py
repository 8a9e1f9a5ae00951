"""The launcher: whatever the server does, each call is answered once and nothing is done twice."""

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
FalseServer = Callable[[Callable[[socket.socket], None]], None]

VERBS = [
    "ADD",
    "DEL",
    *(pytest.param(verb, marks=pytest.mark.exhaustive) for verb in ("CHECK", "GC", "STATUS", "VERSION")),
]


def whole_call(connection: socket.socket) -> wire.Call:
    connection.settimeout(20)
    call = wire.receive(connection)
    call.close()
    return call


def oneshot_was_called(done: Any, size: int | None = None) -> bool:
    said, count = done.stdout.decode().split()
    return done.returncode == 0 and said == "one-shot" and size in (None, int(count))


@pytest.mark.parametrize("command", VERBS)
def test_without_a_server_the_one_shot_answers(stage: Stage, command: str) -> None:
    stage.replace_oneshots()
    assert oneshot_was_called(stage.run(command))


def test_the_one_shot_gets_all_of_stdin(stage: Stage) -> None:
    stage.replace_oneshots()
    for size in (0, 1, 65535, 65536, 16 << 20, (16 << 20) + 1):
        assert oneshot_was_called(stage.run("ADD", b"x" * size), size)


def test_the_real_one_shot_answers_like_the_server_would(stage: Stage) -> None:
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["ips"]) == (0, [{"address": "10.1.0.2/24"}])


def test_a_missing_script_is_a_cni_error(stage: Stage) -> None:
    (stage.scripts / "static").unlink()
    done = stage.run("ADD")
    assert done.returncode == 1
    assert "pycni is not installed completely" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("command", VERBS)
def test_a_refusal_leads_to_the_one_shot(stage: Stage, false_server: FalseServer, command: str) -> None:
    def refuse(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(wire.REFUSED)

    false_server(refuse)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("read", [pytest.param("a part", marks=pytest.mark.exhaustive), "all"])
@pytest.mark.parametrize("command", VERBS)
def test_a_death_before_acceptance_leads_to_the_one_shot(
    stage: Stage, false_server: FalseServer, command: str, read: str
) -> None:
    false_server(lambda connection: (whole_call(connection) if read == "all" else connection.recv(4)) and None)
    assert oneshot_was_called(stage.run(command))


def test_a_death_after_acceptance_is_error_11_for_add(stage: Stage, false_server: FalseServer) -> None:
    def die(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(wire.ACCEPTED)

    false_server(die)
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)
    assert not stage.calls.exists()


@pytest.mark.parametrize("command", VERBS)
def test_a_refusal_after_acceptance_leads_to_the_one_shot(
    stage: Stage, false_server: FalseServer, command: str
) -> None:
    """The server has seen that the launcher changed its mind just when it heard that it was accepted."""

    def refuse(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(wire.ACCEPTED + wire.REFUSED)

    false_server(refuse)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("command", ["CHECK", "DEL", "GC", "STATUS", "VERSION"])
def test_a_death_after_acceptance_is_made_good_for_verbs_that_may_be_repeated(
    stage: Stage, false_server: FalseServer, command: str
) -> None:
    def die(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(wire.ACCEPTED + wire.DONE + struct.pack("=III", 0, 100, 0) + b"half")

    false_server(die)
    assert oneshot_was_called(stage.run(command))


@pytest.mark.parametrize("garbage", [b"\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64)])
def test_garbage_in_place_of_acceptance_leads_to_the_one_shot(
    stage: Stage, false_server: FalseServer, garbage: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(garbage)

    false_server(answer)
    assert oneshot_was_called(stage.run("ADD"))


@pytest.mark.parametrize("begin", [b"", wire.DONE])
def test_garbage_in_place_of_an_answer_is_error_11_for_add(
    stage: Stage, false_server: FalseServer, begin: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        whole_call(connection)
        connection.sendall(wire.ACCEPTED + begin + b"\xff" * 64)

    false_server(answer)
    done = stage.run("ADD")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)


@pytest.mark.exhaustive
def test_a_hanging_server_is_given_up_before_it_has_accepted(stage: Stage, false_server: FalseServer) -> None:
    """It may still accept later, but sees then that the launcher has changed its mind."""
    accepted: list[bool] = []

    def hang(connection: socket.socket) -> None:
        whole_call(connection)
        assert connection.recv(1) == b""  # the launcher has changed its mind
        connection.settimeout(None)
        try:
            accepted.append(wire.accept_call(connection))
            connection.sendall(wire.REFUSED)
        except BrokenPipeError:  # it is gone already
            accepted.append(False)

    false_server(hang)
    assert oneshot_was_called(stage.run("ADD"))
    wait_for(lambda: accepted, "the server to accept")
    assert not any(accepted)


def test_a_slow_reader_and_a_slow_answer_are_waited_for(stage: Stage, false_server: FalseServer) -> None:
    def slow(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        call = whole_call(connection)
        connection.sendall(wire.ACCEPTED + wire.DONE)
        answer = struct.pack("=III", 3, len(call.stdin), 4) + call.stdin + b"warn"
        for start in range(0, len(answer), 70_000):
            connection.sendall(answer[start : start + 70_000])

    false_server(slow)
    done = stage.run("ADD", b"y" * wire.STDIN_MAX)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, wire.STDIN_MAX, b"warn")


def test_the_call_arrives_whole(stage: Stage, false_server: FalseServer) -> None:
    calls: list[wire.Call] = []

    def note(connection: socket.socket) -> None:
        calls.append(whole_call(connection))
        connection.sendall(wire.ACCEPTED)
        wire.send_answer(connection, 0, b"{}", b"")

    false_server(note)
    done = stage.run("ADD", plugin="bridge", TRACEPARENT="00-abc", EMPTY="", CNI_ARGS="A=b=c")
    assert (done.returncode, done.stdout) == (0, b"{}")
    (call,) = calls
    assert (call.type, call.stdin[:1]) == ("bridge", b"{")
    assert (call.env["TRACEPARENT"], call.env["EMPTY"], call.env["CNI_ARGS"]) == ("00-abc", "", "A=b=c")
    assert call.container is None  # /nowhere cannot be opened


def test_what_is_no_socket_is_no_server(stage: Stage) -> None:
    stage.replace_oneshots()
    stage.socket.parent.mkdir()
    stage.socket.write_text("no socket at all")
    assert oneshot_was_called(stage.run("ADD"))


@pytest.fixture
def listener(stage: Stage) -> Iterator[socket.socket]:
    """A socket in the server's place, at which nobody listens yet."""
    stage.replace_oneshots()
    stage.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(stage.socket))
        yield made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.usefixtures("other_users")
def test_a_server_of_another_user_is_told_nothing(stage: Stage, listener: socket.socket) -> None:
    os.seteuid(65534)  # whose server it is shows who listens
    try:
        listener.listen()
    finally:
        os.seteuid(0)
    assert oneshot_was_called(stage.run("ADD"))
    connection, _ = listener.accept()
    with connection:
        assert connection.recv(1) == b""


def test_a_server_whose_queue_is_full_is_not_waited_for(stage: Stage, listener: socket.socket) -> None:
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(stage.socket))
        assert oneshot_was_called(stage.run("ADD"))
