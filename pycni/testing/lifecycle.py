"""What every plugin must survive: a whole life, a failure at every change, and a violent death at every change."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from pycni.kernel.journal import watching
from pycni.protocol.errors import CniError
from pycni.testing import snapshot, transport
from pycni.testing.plugin_runner import PluginRunner

_MANY = 200  # changes; an ADD that makes more has lost its way


def check_lifecycle(runner: PluginRunner) -> None:
    """ADD, CHECK, DEL and DEL again: afterwards host and container are as before.

    A life before that makes what is shared (a bridge, tables of the firewall) and must leave nothing that is the
    attachment's own. The last DEL comes as after a lost cache, without prevResult.
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
    runner.delete()
    _assert_equal(before, snapshot.of_host(runner.container.host), "DEL")
    runner.delete()
    runner.forget()
    runner.delete()
    _assert_equal(before, snapshot.of_host(runner.container.host), "a second DEL")
    _assert_equal(container_before, snapshot.of_namespace(runner.container), "DEL")


def fail_at_every_change(make: Callable[[], PluginRunner]) -> int:
    """Let change 0, 1, 2 … of ADD fail in turn: each time host and container are as before. Returns how many failed."""
    return _at_every_change(make, _add_fails_at)


def kill_at_every_change(make: Callable[[], PluginRunner], *, gc: bool = True) -> int:
    """Kill ADD at change 0, 1, 2 … in turn: each time GC, or the DEL that runtimes send, leaves all as before.

    Without `gc` only DEL comes, for plugins that change what another one made: that goes with GC of the other.
    Returns how many died.
    """
    return _at_every_change(make, partial(_add_is_killed_at, gc=gc))


def _at_every_change(make: Callable[[], PluginRunner], end_add: Callable[[PluginRunner, int], bool]) -> int:
    runner = make()
    runner.add()
    runner.delete()
    host, container = snapshot.of_host(runner.container.host), snapshot.of_namespace(runner.container)
    for number in range(_MANY):
        runner = make()
        if not end_add(runner, number):
            runner.delete()
            assert number > 0, "ADD made no change that could fail"
            return number
        # GC may also have removed rules that nothing leads to any more.
        after = snapshot.of_host(runner.container.host) | {line for line in host if line.startswith("nft chain")}
        _assert_equal(host, after, f"an ADD that ended at change {number}")
        _assert_equal(container, snapshot.of_namespace(runner.container), f"an ADD that ended at change {number}")
    raise AssertionError(f"ADD makes more than {_MANY} changes")


def _add_fails_at(runner: PluginRunner, number: int) -> bool:
    """Whether an ADD whose change `number` fails came as far as that."""
    try:
        with watching(_FaultInjector(number, _injected_failure)), transport.restarting_server():
            runner.add()
    except CniError as error:
        if "injected" not in str(error):
            raise
        return True
    return False


def _add_is_killed_at(runner: PluginRunner, number: int, *, gc: bool) -> bool:
    """The same for an ADD that is killed there, in a process of its own; DEL or GC comes after, turn by turn."""
    with transport.restarting_server():  # a process with threads should not fork
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException), watching(_FaultInjector(number, lambda: os._exit(9))):
                runner.add()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (0, 9), "ADD failed in a process of its own"
    if ended == 9 and gc and number % 2:
        runner.gc()
    else:
        runner.delete()
    return ended == 9


def _injected_failure() -> None:
    raise CniError("injected failure")


class _FaultInjector:
    """A watcher that lets one change end badly."""

    def __init__(self, number: int, end: Callable[[], None]) -> None:
        self._left = number
        self._end = end

    def __call__(self, _what: str) -> AbstractContextManager[None]:
        return self._watch()

    @contextmanager
    def _watch(self) -> Iterator[None]:
        self._left -= 1
        if self._left == -1:  # this one, and none of those that undo
            self._end()
        yield


def _assert_equal(before: set[str], after: set[str], what: str) -> None:
    assert before == after, f"{what} left {sorted(after - before)} and took {sorted(before - after)}"
