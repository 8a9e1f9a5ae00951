"""Errors of calls that arrive while pycni is being installed or upgraded: some of its modules are missing then."""

from pycni.protocol.errors import CniError, Code

_PACKAGES = frozenset({"pycni", "pycni_plugins"})
MESSAGE = "pycni is being installed; try again"
REMEDY = "if no installation is running, install pycni again"


def is_caused_by_upgrade(error: BaseException) -> bool:
    """Return whether the error is a failed import of a module of pycni."""
    return isinstance(error, ImportError) and str(error.name).partition(".")[0] in _PACKAGES


def upgrade_error(error: BaseException) -> CniError:
    """Return the error for the caller (code 11, "try again later")."""
    cause = f"{type(error).__name__}: {error}"
    return CniError(MESSAGE, code=Code.TRY_AGAIN_LATER, details=f"{cause}; {REMEDY}")
