"""The base class of plugins: a configuration model and three verbs, ADD, CHECK and DEL."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from pycni.protocol import version
from pycni.protocol.result import Result
from pycni.sdk.attachment import Attachment, Network
from pycni.sdk.config import NetConf

if TYPE_CHECKING:
    from pathlib import Path  # takes 2 ms to load

C = TypeVar("C", bound=NetConf)


class Plugin(ABC, Generic[C]):
    """A CNI plugin. It holds no state: all there is comes through `cni`.

    Verbs of `cni.host` and `cni.container` write down what they change; if `add` raises, all of it is undone.
    """

    config: ClassVar[type[NetConf]] = NetConf
    versions: ClassVar[tuple[str, ...]] = version.ALL  # of the specification, oldest first
    cni_args: ClassVar[tuple[str, ...]] = ()  # the keys of CNI_ARGS that it reads; with none it ignores CNI_ARGS

    @abstractmethod
    def add(self, cni: Attachment[C]) -> Result:
        """Attach the container, or change what earlier plugins of the chain made (SPEC section 2, ADD)."""

    @abstractmethod
    def check(self, cni: Attachment[C]) -> None:
        """Raise CniError if what `add` made is not as it should be (SPEC section 2, CHECK)."""

    @abstractmethod
    def delete(self, cni: Attachment[C]) -> None:
        """Remove what `add` made; what is gone already is fine (SPEC section 2, DEL)."""

    def status(self, cni: Network[C]) -> None:
        """Raise CniError, code 50 or 51, if `add` could not work now (SPEC section 2, STATUS)."""
        cni.ipam.status()

    def gc(self, cni: Network[C]) -> None:
        """Remove what belongs to no valid attachment of the network (SPEC section 2, GC)."""
        stale = cni.stale
        cni.ipam.gc_before_links()
        cni.host.delete_stale(stale)
        cni.ipam.gc()

    @classmethod
    def background_service(cls, run: "Path") -> AbstractContextManager[None]:  # noqa: ARG003 - for those that have one
        """What of the plugin lives on between calls, if anything does: the server enters it and leaves it when it ends.

        `run` is /run, or the directory that stands in for it. It must not delay the server.
        """
        return nullcontext()

    @classmethod
    def run_command(cls, arguments: Sequence[str]) -> int | None:  # noqa: ARG003 - for those that know one
        """Do what the executable was started for by hand, with these words behind its name; its exit status.

        None if the plugin does not know them.
        """
        return None
