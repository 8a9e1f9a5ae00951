"""The base class of plugins: a configuration model and a method for each verb of the specification."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """Base class of CNI plugins. Its subclasses implement `add`, `check` and `delete`.

    A new object answers each call; everything it needs is in the argument `cni`. Methods of `cni.host` and
    `cni.container` record their changes in a journal. If `add` raises an exception, all changes are rolled back.

        class MtuConfig(NetConf):
            mtu: int

        class Mtu(Plugin[MtuConfig]):
            config = MtuConfig

            def add(self, cni: Attachment[MtuConfig]) -> Result:
                cni.container.link(cni.ifname).set(mtu=cni.config.mtu)
                return cni.required_prev_result

            def check(self, cni: Attachment[MtuConfig]) -> None:
                cni.container.link(cni.ifname).expect(mtu=cni.config.mtu)

            def delete(self, cni: Attachment[MtuConfig]) -> None:
                pass  # the kernel removes the MTU with the interface
    """

    config: ClassVar[type[NetConf]] = NetConf  # the model of the configuration
    versions: ClassVar[tuple[str, ...]] = version.ALL  # supported versions of the specification, oldest first
    cni_args: ClassVar[tuple[str, ...]] = ()  # keys of CNI_ARGS that the plugin reads; () ignores CNI_ARGS

    @abstractmethod
    def add(self, cni: Attachment[C]) -> Result:
        """Attach the container, or change what earlier plugins of the chain created (SPEC section 2, ADD).

        Return the result, for example `cni.result(…)`, or `cni.required_prev_result` if nothing in it changes. Raise
        CniError to fail; all changes are rolled back then.
        """

    @abstractmethod
    def check(self, cni: Attachment[C]) -> None:
        """Raise CniError unless everything is as `add` created it (SPEC section 2, CHECK). Change nothing."""

    @abstractmethod
    def delete(self, cni: Attachment[C]) -> None:
        """Delete what `add` created; what is gone already is fine (SPEC section 2, DEL).

        There may be no earlier ADD and no prevResult, and the network namespace may be gone. The deleting methods of
        `cni.host` and `cni.container` do not raise: failures are reported at the end of the call.
        """

    def status(self, cni: Network[C]) -> None:
        """Raise CniError, code 50 or 51, if the plugin is not ready for ADD (SPEC section 2, STATUS).

        By default ask the IPAM plugin.
        """
        cni.ipam.status()

    def gc(self, cni: Network[C]) -> None:
        """Delete what belongs to stale attachments of the network (SPEC section 2, GC).

        By default delete what carries their ownership labels on the host, and call GC of the IPAM plugin.
        """
        stale = cni.stale
        cni.ipam.gc_before_links()
        cni.host.delete_stale(stale)
        cni.ipam.gc()

    @classmethod
    def background_service(  # the argument is for subclasses
        cls,
        run: "Path",  # noqa: ARG003
    ) -> "AbstractContextManager[Callable[[], bool] | None]":
        """Return a context manager for a service of the plugin, which the resident server runs as long as itself.

        The default does nothing. Entering it must not block, so a service starts a thread or a process. `run` is /run,
        or the directory that replaces it in tests. The context may yield a function that returns whether the service
        has something to do; as long as it has, a server that ends when it is not used goes on.

            @classmethod
            @contextmanager
            def background_service(cls, run: Path) -> Iterator[Callable[[], bool]]:
                daemon = LeaseDaemon(run / "cni" / "acme.sock")
                daemon.start()
                try:
                    yield daemon.has_leases
                finally:
                    daemon.stop()
        """
        return nullcontext()

    @classmethod
    def run_command(cls, arguments: Sequence[str]) -> int | None:  # noqa: ARG003 - for subclasses
        """Run a command of the executable, started by hand with arguments and without CNI_COMMAND.

        Return the exit status, or None if the plugin has no such command.
        """
        return None
