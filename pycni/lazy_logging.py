"""A stand-in for the module logging in processes that answer one call.

In such a process nothing configures logging, so records below WARNING are dropped and the others go to stderr. The
stand-in drops the former by itself, and loads logging for everything else. Importing logging takes 4 ms.
"""

import sys
from typing import Any

from pycni.lazy_loading import StandIn

_LOGGING = "logging"


def defer() -> None:
    """Put the stand-in into `sys.modules`. Call it before anything imports logging."""
    sys.modules.setdefault(_LOGGING, _Logging(_LOGGING))


class _Logging(StandIn):
    """The module. It creates loggers without loading logging."""

    def getLogger(self, name: str | None = None) -> Any:  # noqa: N802 - the name in logging
        """Return a logger."""
        return _Logger(self, name) if sys.modules.get(_LOGGING) is self else self.load().getLogger(name)


class _Logger:
    """A logger; once logging is loaded it passes everything on to the real one."""

    def __init__(self, module: _Logging, name: str | None) -> None:
        self._module = module
        self._name = name

    def debug(self, *arguments: Any, **options: Any) -> None:
        """Log at level DEBUG, if anybody has loaded logging and so may have configured it."""
        if sys.modules.get(_LOGGING) is not self._module:
            self._real.debug(*arguments, **options)

    def info(self, *arguments: Any, **options: Any) -> None:
        """Log at level INFO, if anybody has loaded logging and so may have configured it."""
        if sys.modules.get(_LOGGING) is not self._module:
            self._real.info(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def _real(self) -> Any:
        return self._module.load().getLogger(self._name)
