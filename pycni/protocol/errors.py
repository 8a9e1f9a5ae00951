"""CNI errors: a code, a message, details, and their JSON form (SPEC section 2, "Error")."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Self

from pycni.protocol import go_json


class Code(IntEnum):
    """The well-known error codes of the specification; from 100 on they are the plugin's own."""

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
    """An error that reaches the caller as CNI error JSON.

    `msg` says what is wrong and names the thing; `details` adds cause and remedy. Notes added on the way
    (`error.add_note("while: create bridge cni0")`) become part of the details.
    """

    def __init__(self, msg: str, *, code: int = Code.INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.code = int(code)
        self.msg = msg
        self.details = details
        self.forward_unchanged = False  # whether it is another plugin's, which travels on unchanged
        self.rolled_back = False  # whether that plugin has taken back all that it did

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    @classmethod
    def from_exception(cls, error: BaseException) -> "CniError":
        """The CNI error inside an exception, or one made of it; notes become details."""
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
        """Read an error object as a plugin printed it (keys in any case, unknown keys ignored).

        Raises ValueError when a field has the wrong type.
        """
        fields = go_json.select_members(document, ("code", "msg", "details"))
        code, msg, details = fields.get("code", 0), fields.get("msg", ""), fields.get("details", "")
        if isinstance(code, bool) or not isinstance(code, int) or code < 0:
            raise ValueError(f"the code of an error object is a natural number, not {code!r}")
        if not isinstance(msg, str) or not isinstance(details, str):
            raise ValueError("msg and details of an error object are strings")
        error = cls(msg, code=code, details=details)
        error.forward_unchanged = True
        return error

    def to_json(self, cni_version: str = "") -> str:
        """The error object as a plugin prints it: indented by four, no newline at the end."""
        document: dict[str, object] = {"cniVersion": cni_version} if cni_version else {}
        document |= {"code": self.code, "msg": self.msg}
        if self.details:
            document["details"] = self.details
        return go_json.dumps_indented(document)


class ConfigError(CniError):
    """The network configuration is wrong (code 7)."""

    def __init__(self, msg: str, *, code: int = Code.INVALID_NETWORK_CONFIG, details: str = "") -> None:
        super().__init__(msg, code=code, details=details)
