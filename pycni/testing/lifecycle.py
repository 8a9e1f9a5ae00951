"""Checks that every plugin must pass: a full lifecycle, and ADDs that fail or are killed at every change."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from pycni.kernel.journal import watching
from pycni.protocol.errors import CniError
from pycni.testing import snapshot, transport
from pycni.testing.plugin_runner import PluginRunner

_MAX_CHANGES = 200  # an ADD that makes more has an endless loop


def check_lifecycle(runner: PluginRunner) -> None:
    """Run ADD, CHECK, ADD, DEL and DEL again. Raise AssertionError unless host and container are as before.

    If the second ADD fails, because the attachment exists, the attachment must still be as the first ADD left it.
    An ADD and a DEL before that create what attachments share (a bridge, tables of the firewall). They must leave
    nothing that carries the ownership label of the attachment. The last DEL has no prevResult, as after a lost cache.
    Raises CniError if a call fails.
    """
    container_before = snapshot.of_namespace(runner.container)
    untouched = snapshot.of_host(runner.container.host)
    previous = runner.result
    runner.add()
    runner.delete()
    before = snapshot.of_host(runner.container.host)
    owner = runner.owner
    names = (owner.key, owner.host_ifname, owner.container_name("CNI-", 28))
    own = [line for line in before - untouched if any(name in line for name in names)]
    assert not own, f"DEL left {own}"
    runner.result = previous
    runner.add()
    runner.check()
    _repeat_add(runner)
    runner.delete()
    _assert_equal(before, snapshot.of_host(runner.container.host), "DEL")
    runner.delete()
    runner.forget()
    runner.delete()
    _assert_equal(before, snapshot.of_host(runner.container.host), "a second DEL")
    _assert_equal(container_before, snapshot.of_namespace(runner.container), "DEL")


def _repeat_add(runner: PluginRunner) -> None:
    """Call ADD for an attachment that exists. Raise AssertionError if it fails and has changed the attachment."""
    host, container = snapshot.of_host(runner.container.host), snapshot.of_namespace(runner.container)
    result = runner.result
    try:
        runner.add()
    except CniError as error:
        what = f"an ADD of an attachment that exists ({error.msg})"
        _assert_equal(host, snapshot.of_host(runner.container.host), what)
        _assert_equal(container, snapshot.of_namespace(runner.container), what)
        runner.result = result
        runner.check()


def fail_at_every_change(make: Callable[[], PluginRunner]) -> int:
    """Make change 0, 1, 2, … of an ADD fail in turn, and return how many failed.

    Each change fails twice: once before anything is changed, and once when it is made but not yet reported as done.
    `make` returns a runner whose ADD works. Raises AssertionError unless host and container are as before after each
    failure, that is, unless the ADD was rolled back.

        assert fail_at_every_change(lambda: PluginRunner("bridge", container, bridge="br0")) > 0
    """
    before = _at_every_change(make, partial(_add_fails_at, after=False))
    after = _at_every_change(make, partial(_add_fails_at, after=True))
    assert before == after, f"ADD made {before} changes that could fail, and {after} in another run"
    return before


def kill_at_every_change(make: Callable[[], PluginRunner], *, gc: bool = True) -> int:
    """Kill an ADD at change 0, 1, 2, … in turn, clean up by GC and DEL alternately, and return how many were killed.

    `make` returns a runner whose ADD works. Raises AssertionError unless host and container are as before each time.
    With `gc=False` only DEL cleans up, for plugins that change the interface of another plugin: GC of the other plugin
    removes the interface.
    """
    return _at_every_change(make, partial(_add_is_killed_at, gc=gc))


def _at_every_change(make: Callable[[], PluginRunner], end_add: Callable[[PluginRunner, int], bool]) -> int:
    runner = make()
    runner.add()
    runner.delete()
    host, container = snapshot.of_host(runner.container.host), snapshot.of_namespace(runner.container)
    for number in range(_MAX_CHANGES):
        runner = make()
        if not end_add(runner, number):
            runner.delete()
            assert number > 0, "ADD made no change that could fail"
            return number
        # GC may also have removed empty chains that no rule jumps to.
        after = snapshot.of_host(runner.container.host) | {line for line in host if line.startswith("nft chain")}
        _assert_equal(host, after, f"an ADD that ended at change {number}")
        _assert_equal(container, snapshot.of_namespace(runner.container), f"an ADD that ended at change {number}")
    raise AssertionError(f"ADD makes more than {_MAX_CHANGES} changes")


def _add_fails_at(runner: PluginRunner, number: int, *, after: bool) -> bool:
    """Run an ADD whose change `number` fails, before or `after` it is made; return whether ADD made so many changes."""
    try:
        with watching(_FaultInjector(number, _injected_failure, after=after)), transport.restarting_server():
            runner.add()
    except CniError as error:
        if "injected" not in str(error):
            raise
        return True
    return False


def _add_is_killed_at(runner: PluginRunner, number: int, *, gc: bool) -> bool:
    """Run an ADD in a child process that is killed at change `number`, clean up, and return whether it was killed."""
    with transport.restarting_server():  # fork() is unsafe in a process with threads
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException), watching(_FaultInjector(number, lambda: os._exit(9))):
                runner.add()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (0, 9), "ADD failed in a child process"
    if ended == 9 and gc and number % 2:
        runner.gc()
    else:
        runner.delete()
    return ended == 9


def _injected_failure() -> None:
    raise CniError("injected failure")


class _FaultInjector:
    """Watcher of the journal that calls `end` at change `number`: instead of making it, or `after` it is made."""

    def __init__(self, number: int, end: Callable[[], None], *, after: bool = False) -> None:
        self._left = number
        self._end = end
        self._after = after

    def __call__(self, _what: str) -> AbstractContextManager[None]:
        return self._watch()

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self._left -= 1
        chosen = self._left == -1  # only this change, not the rollback after it
        if chosen and not self._after:
            self._end()
        yield
        if chosen and self._after:
            self._end()


def _assert_equal(before: set[str], after: set[str], what: str) -> None:
    assert before == after, f"{what} left {sorted(after - before)} and removed {sorted(before - after)}"
