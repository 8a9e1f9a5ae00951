"""How a chain of plugins fails: one plugin that says why, or several of them together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pycni.protocol.errors import CniError
from pycni.runtime.configuration import PluginConfig


class PluginError(CniError):
    """A plugin of a chain failed: the plugin's own code, message and details, and which plugin it was (P-450)."""

    def __init__(self, cause: CniError, plugin: PluginConfig, verb: str) -> None:
        super().__init__(cause.msg, code=cause.code, details=cause.details)
        self.cause = cause
        self.plugin = plugin
        self.verb = verb  # add or delete

    def __str__(self) -> str:
        name = f' name="{self.plugin.name}"' if self.plugin.name else ""
        return f'plugin type="{self.plugin.type}"{name} failed ({self.verb}): {self.cause}'


class CollectedError(CniError):
    """Several things failed, and all were tried: the code of the first, each of them in the details."""

    def __init__(self, what: str, failures: Sequence[CniError]) -> None:
        super().__init__(what, code=failures[0].code, details="\n".join(str(failure) for failure in failures))
        self.failures = tuple(failures)


def raise_all(what: str, failures: Sequence[CniError]) -> None:
    """Raise the failure, or one error of all of them; content if there is none."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise CollectedError(what, failures)


def in_context(what: str, error: CniError) -> CniError:
    """The error with a sentence before it that says what was tried."""
    return CniError(f"{what}: {error}", code=error.code)


@contextmanager
def blaming(plugin: PluginConfig, verb: str) -> Iterator[None]:
    """Say of every error which plugin's it is."""
    try:
        yield
    except CniError as error:
        raise PluginError(error, plugin, verb) from error


@contextmanager
def blaming_nobody() -> Iterator[None]:
    """Where there is but one plugin, its error needs no name (P-456)."""
    try:
        yield
    except PluginError as error:
        for note in getattr(error, "__notes__", ()):
            error.cause.add_note(note)
        raise error.cause from None
