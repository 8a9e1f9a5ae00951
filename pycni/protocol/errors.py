"""CNI errors: code, message, details, and their JSON form (SPEC section 2, Error)."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Self

from pycni.protocol import go_json


class Code(IntEnum):
    """Error codes defined by the specification. Codes from 100 are free for plugins.

    999 (INTERNAL) is what the Go plugins use for errors without a code of their own.
    """

    UNKNOWN = 0
    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_NETWORK_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN_LATER = 11
    PLUGIN_NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    INTERNAL = 999


class CniError(Exception):
    """An error that the caller of the plugin receives as a CNI error object.

    `msg` is one line that names what failed; `details` adds cause and remedy; `code` is a Code, or a number from 100.
    Notes (`error.add_note("while: create bridge cni0")`) become part of the details.

        raise CniError(f"{link} has lost {address}")
        raise CniError("no free address", code=Code.TRY_AGAIN_LATER, details="enlarge the range, or remove containers")
    """

    def __init__(self, msg: str, *, code: int = Code.INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.code = int(code)
        self.msg = msg
        self.details = details
        self.forward_unchanged = False  # whether another plugin reported it; notes are not added to it then
        self.rolled_back = False  # whether the failed operation has left nothing that Journal.change would have to undo

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    @classmethod
    def from_exception(cls, error: BaseException) -> "CniError":
        """Return `error` as a CniError with its notes as details. The error of another plugin stays unchanged."""
        notes = "; ".join(getattr(error, "__notes__", ()))
        if isinstance(error, CniError) and error.forward_unchanged:
            return error
        if isinstance(error, CniError):
            details = "; ".join(filter(None, (error.details, notes)))
            return CniError(error.msg, code=error.code, details=details)
        msg = str(error) or type(error).__name__
        return CniError(msg, details=notes)

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Self:
        """Return the error in an error object that a plugin printed.

        Keys match in any letter case, unknown keys are ignored. Raises ValueError if a member has the wrong type.
        """
        fields = go_json.select_members(document, ("code", "msg", "details"))
        code, msg, details = fields.get("code", 0), fields.get("msg", ""), fields.get("details", "")
        if isinstance(code, bool) or not isinstance(code, int) or code < 0:
            raise ValueError(f"the code of an error object must be a number from 0, not {code!r}")
        if not isinstance(msg, str) or not isinstance(details, str):
            raise ValueError("msg and details of an error object must be strings")
        error = cls(msg, code=code, details=details)
        error.forward_unchanged = True
        return error

    def to_json(self, cni_version: str = "") -> str:
        """Return the error object as a plugin prints it: indented by four spaces, without a newline at the end."""
        document: dict[str, object] = {"cniVersion": cni_version} if cni_version else {}
        document |= {"code": self.code, "msg": self.msg}
        if self.details:
            document["details"] = self.details
        return go_json.dumps_indented(document)


class ConfigError(CniError):
    """An error in the network configuration (code 7, INVALID_NETWORK_CONFIG)."""

    def __init__(self, msg: str, *, code: int = Code.INVALID_NETWORK_CONFIG, details: str = "") -> None:
        super().__init__(msg, code=code, details=details)
