"""Errors of a plugin chain: the failure of one plugin, or the failures of several."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pycni.protocol.errors import CniError
from pycni.runtime.configuration import PluginConfig


class PluginError(CniError):
    """The failure of one plugin: its code, message and details, and the plugin's type and name."""

    def __init__(self, cause: CniError, plugin: PluginConfig, verb: str) -> None:
        super().__init__(cause.msg, code=cause.code, details=cause.details)
        self.cause = cause
        self.plugin = plugin
        self.verb = verb  # add or delete

    def __str__(self) -> str:
        name = f' name="{self.plugin.name}"' if self.plugin.name else ""
        return f'plugin type="{self.plugin.type}"{name} failed ({self.verb}): {self.cause}'


class CollectedError(CniError):
    """Several failures of one operation: `code` is that of the first, `details` lists all."""

    def __init__(self, what: str, failures: Sequence[CniError]) -> None:
        super().__init__(what, code=failures[0].code, details="\n".join(str(failure) for failure in failures))
        self.failures = tuple(failures)


def raise_all(what: str, failures: Sequence[CniError]) -> None:
    """Raise the only failure, or a CollectedError of several; return if there is none."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise CollectedError(what, failures)


def in_context(what: str, error: CniError) -> CniError:
    """Return the error with a prefix that says what was tried."""
    return CniError(f"{what}: {error}", code=error.code)


@contextmanager
def naming_plugin(plugin: PluginConfig, verb: str) -> Iterator[None]:
    """Turn a CniError raised inside the block into a PluginError that names the plugin."""
    try:
        yield
    except CniError as error:
        raise PluginError(error, plugin, verb) from error


@contextmanager
def unnamed_plugin() -> Iterator[None]:
    """Raise the plugin's own error instead of a PluginError: with a single plugin the name adds nothing."""
    try:
        yield
    except PluginError as error:
        for note in getattr(error, "__notes__", ()):
            error.cause.add_note(note)
        raise error.cause from None
