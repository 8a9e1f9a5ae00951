"""Plugins whose whole work is one link in the container: they say what is special about it."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pycni.protocol.errors import CniError
from pycni.protocol.result import Result
from pycni.sdk.attachment import Attachment, Network
from pycni.sdk.config import Mac, MacSource, NetConf, OptionalIfname
from pycni.sdk.lease import Lease
from pycni.sdk.models import Field
from pycni.sdk.plugin import Plugin

if TYPE_CHECKING:
    from pycni.kernel.link.link import Link

LinkSettings = dict[str, int | str | bool | None]  # by the names of LinkState
C = TypeVar("C", bound=NetConf)


class LinkPlugin(Plugin[C]):
    """Makes a link of its kind, and removes it: nothing of it is outside the container."""

    kind: ClassVar[str]  # as the kernel calls it
    on_lan: ClassVar[bool] = True  # behind the link is a network of others, with routers and neighbours

    @abstractmethod
    def create_link(self, cni: Attachment[C]) -> "Link":
        """Make the link, with its name and its owner's label, still down."""

    def lease(self, cni: Attachment[C]) -> Lease:
        """Its addresses and routes."""
        return cni.ipam.add()

    def expected_settings(self, cni: Attachment[C]) -> LinkSettings:  # noqa: ARG002
        """What CHECK wants of the link beyond its kind (see LinkState); None is whatever it is."""
        return {}

    def add(self, cni: Attachment[C]) -> Result:
        """Make the link and give it its addresses."""
        cni.container.links.expect_absent(cni.ifname)
        link = self.create_link(cni)
        lease = self.lease(cni)  # only now: a DHCP client needs the link
        cni.container.addresses.configure(link, lease.cidrs, lease.resolved_routes(), on_lan=self.on_lan)
        return cni.result(link, lease=lease, on=link)

    def check(self, cni: Attachment[C]) -> None:
        """See that the link, its addresses and its routes are as ADD left them."""
        cni.ipam.check()
        link = cni.container.link(cni.ifname)
        link.expect(kind=self.kind, up=True, **_without_none(self.expected_settings(cni)))
        cni.expect_prev_result()

    def delete(self, cni: Attachment[C]) -> None:
        """Give the addresses back, while a DHCP client still has the link, and remove it."""
        cni.ipam.delete()
        cni.delete_link()

    def status(self, cni: Network[C]) -> None:
        """Ready if IPAM is, and the kernel has such links."""
        cni.ipam.status()
        cni.host.links.expect_kind_supported(self.kind)

    def gc(self, cni: Network[C]) -> None:
        """Only addresses are left behind by a container that is gone."""
        cni.ipam.gc()


class MacConf(NetConf):
    """The configuration of a link whose hardware address may be asked for."""

    mac: Mac = ""
    runtime_config: MacSource = MacSource()

    def requested_mac(self, cni_args: Mapping[str, str]) -> str:
        """The MAC that is asked for; empty if nobody does."""
        return self.runtime_config.mac or MacSource.from_cni_args(cni_args) or self.mac


class MasterConf(NetConf):
    """The configuration of a link that stands on another one."""

    master: OptionalIfname = ""
    mtu: int = Field(0, ge=0, lt=1 << 31)
    link_in_container: bool = False


M = TypeVar("M", bound=MasterConf)


class MasterLinkPlugin(LinkPlugin[M]):
    """Makes a link that stands on another one, its master: of the host, or with linkInContainer of the container."""

    requires_master_up: ClassVar[bool] = False  # else the kernel refuses to set it up
    mtu_limited_by_master: ClassVar[bool] = True  # its frames pass the master whole

    @abstractmethod
    def link_settings(self, conf: M) -> LinkSettings:
        """What the link has that only its kind has; None leaves it to the kernel."""

    def mac(self, cni: Attachment[M]) -> str:  # noqa: ARG002
        """Its hardware address, if not the kernel's choice."""
        return ""

    def master_name(self, cni: Attachment[M]) -> str:
        """The name of the master; with none it is the link of the default route."""
        return cni.config.master

    def create_link(self, cni: Attachment[M]) -> "Link":
        """Make the link on its master."""
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
        """Its settings, and its MTU if it is configured."""
        return {**self.link_settings(cni.config), "mtu": cni.config.mtu or None}

    def check(self, cni: Attachment[M]) -> None:
        """See that all is as ADD left it; if the master is named, that it is still that one."""
        super().check(cni)
        link = cni.container.link(cni.ifname)
        if cni.config.master and link.state.peer != (master := self._master(cni)).index:
            raise CniError(f"{link} should stand on {master}, but stands on another link")

    def _master(self, cni: Attachment[M]) -> "Link":
        place = cni.container if cni.config.link_in_container else cni.host
        name = self.master_name(cni)
        master = place.find_link(name) if name else place.links.find_default()
        if master is not None:
            return master
        where = f"the container ({place.path})" if cni.config.link_in_container else "the host"
        if name:
            raise CniError(f'master "{name}" not found', details=f"there is no such link in {where}")
        raise CniError("no default route interface found", details=f"{where} has no default route: name a master")


def _without_none(settings: LinkSettings) -> LinkSettings:
    return {key: value for key, value in settings.items() if value is not None}
