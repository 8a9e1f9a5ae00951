"""Base classes of plugins that create one link in the container, such as macvlan, vlan and dummy."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from pycni.kernel.link.link_settings import LinkSettings
from pycni.protocol.errors import CniError
from pycni.protocol.result import Result
from pycni.sdk.attachment import Attachment, Network
from pycni.sdk.config import Mac, MacSource, NetConf, OptionalIfname
from pycni.sdk.lease import Lease
from pycni.sdk.models import Field
from pycni.sdk.plugin import Plugin

if TYPE_CHECKING:
    from pycni.kernel.link.link import Link

C = TypeVar("C", bound=NetConf)


class LinkPlugin(Plugin[C]):
    """Creates one link in the container, gives it addresses from IPAM, and deletes it.

    A subclass sets `kind` and implements `create_link`. The link exists in the container only, so GC just releases
    addresses.

        class Dummy(LinkPlugin[NetConf]):
            kind = "dummy"
            on_lan = False

            def create_link(self, cni: Attachment[NetConf]) -> Link:
                return cni.container.links.create(cni.ifname, self.kind, cni.owner)
    """

    kind: ClassVar[str]  # the kernel's name of the kind of link, such as "macvlan"
    on_lan: ClassVar[bool] = True  # whether the link reaches a network with other hosts and routers

    @abstractmethod
    def create_link(self, cni: Attachment[C]) -> "Link":
        """Create the link, down, with the name `cni.ifname` and the label of `cni.owner`."""

    def lease(self, cni: Attachment[C]) -> Lease:
        """Return the addresses and routes of the link; by default what IPAM assigns."""
        return cni.ipam.add()

    def expected_settings(self, cni: Attachment[C]) -> LinkSettings:  # noqa: ARG002
        """Return the settings that CHECK compares besides the kind of link; None leaves one out."""
        return {}

    def add(self, cni: Attachment[C]) -> Result:
        """Create the link and configure its addresses and routes."""
        cni.container.links.expect_absent(cni.ifname)
        link = self.create_link(cni)
        lease = self.lease(cni)  # after the link is created: a DHCP client needs it
        cni.container.addresses.configure(link, lease.cidrs, lease.resolved_routes(), on_lan=self.on_lan)
        return cni.result(link, lease=lease, on=link)

    def check(self, cni: Attachment[C]) -> None:
        """Raise CniError unless the link, its addresses and its routes are as ADD created them."""
        cni.ipam.check()
        link = cni.container.link(cni.ifname)
        link.expect(kind=self.kind, up=True)
        link.expect(**_without_none(self.expected_settings(cni)))
        cni.expect_prev_result()

    def delete(self, cni: Attachment[C]) -> None:
        """Release the addresses, for which a DHCP client needs the link, and delete the link."""
        cni.ipam.delete()
        cni.delete_link()

    def status(self, cni: Network[C]) -> None:
        """Raise CniError unless the IPAM plugin is ready and the kernel supports this kind of link."""
        cni.ipam.status()
        cni.host.links.expect_kind_supported(self.kind)

    def gc(self, cni: Network[C]) -> None:
        """Release the addresses of stale attachments. Their links are gone with their network namespaces."""
        cni.ipam.gc()


class MacConf(NetConf):
    """Base class of configurations of a link whose MAC address can be requested: `mac`, runtimeConfig or CNI_ARGS."""

    mac: Mac = ""
    runtime_config: MacSource = MacSource()

    def requested_mac(self, cni_args: Mapping[str, str]) -> str:
        """Return the requested MAC address: that of runtimeConfig, else CNI_ARGS, else `mac`; "" if there is none."""
        return self.runtime_config.mac or MacSource.from_cni_args(cni_args) or self.mac


class MasterConf(NetConf):
    """Base class of configurations of a link on top of another one, the master."""

    master: OptionalIfname = ""
    mtu: int = Field(0, ge=0, lt=1 << 31)
    link_in_container: bool = False


M = TypeVar("M", bound=MasterConf)


class MasterLinkPlugin(LinkPlugin[M]):
    """Creates a link on top of another one, the master: a link of the host, or with linkInContainer of the container.

    A subclass sets `kind` and implements `link_settings`.

        class Macvlan(MasterLinkPlugin[MacvlanConfig]):
            kind = "macvlan"

            def link_settings(self, conf: MacvlanConfig) -> LinkSettings:
                return {"mode": conf.mode}
    """

    requires_master_up: ClassVar[bool] = False  # whether the kernel sets the link up only if the master is up
    mtu_limited_by_master: ClassVar[bool] = True  # whether the MTU must not exceed that of the master

    @abstractmethod
    def link_settings(self, conf: M) -> LinkSettings:
        """Return the settings that only this kind of link has; None leaves one to the kernel."""

    def mac(self, cni: Attachment[M]) -> str:  # noqa: ARG002
        """Return the MAC address of the link; "" leaves it to the kernel."""
        return ""

    def master_name(self, cni: Attachment[M]) -> str:
        """Return the name of the master; "" is the link of the default route."""
        return cni.config.master

    def create_link(self, cni: Attachment[M]) -> "Link":
        """Create the link on its master. Raises CniError if there is no such master, or if it does not fit."""
        conf, master = cni.config, self._master(cni)
        if self.mtu_limited_by_master and conf.mtu > (most := master.state.mtu):
            raise CniError(
                f"invalid MTU {conf.mtu}, must be [0, master MTU({most})]", details=f"the master is {master}"
            )
        if self.requires_master_up and not master.state.up:
            raise CniError(f'master "{master}" is down', details=f"set it up: ip link set {master} up")
        return cni.container.links.create(
            cni.ifname,
            self.kind,
            cni.owner,
            master=master,
            mtu=conf.mtu,
            mac=self.mac(cni),
            settings=_without_none(self.link_settings(conf)),
        )

    def expected_settings(self, cni: Attachment[M]) -> LinkSettings:
        """Return `link_settings`, and the MTU if it is configured."""
        return {**self.link_settings(cni.config), "mtu": cni.config.mtu or None}

    def check(self, cni: Attachment[M]) -> None:
        """Raise CniError unless the link is as ADD created it, on the configured master if there is one."""
        super().check(cni)
        link = cni.container.link(cni.ifname)
        if cni.config.master and link.state.peer != (master := self._master(cni)).index:
            raise CniError(f"{link} should be on master {master}, but is on another link")

    def _master(self, cni: Attachment[M]) -> "Link":
        namespace = cni.container if cni.config.link_in_container else cni.host
        name = self.master_name(cni)
        master = namespace.find_link(name) if name else namespace.links.find_default()
        if master is not None:
            return master
        where = f"the container ({namespace.path})" if cni.config.link_in_container else "the host"
        if name:
            raise CniError(f'master "{name}" not found', details=f"there is no link of that name in {where}")
        raise CniError("no default route interface found", details=f"{where} has no default route: name a master")


def _without_none(settings: LinkSettings) -> LinkSettings:
    return cast(LinkSettings, {key: value for key, value in settings.items() if value is not None})
