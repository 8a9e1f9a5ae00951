"""acme-mtu: change the MTU of the interface that an earlier plugin of the chain created."""

from pycni.sdk import Attachment, NetConf, Plugin, Result


class MtuConfig(NetConf):
    mtu: int = 1400


class Mtu(Plugin[MtuConfig]):
    config = MtuConfig

    def add(self, cni: Attachment[MtuConfig]) -> Result:
        cni.container.link(cni.ifname).set(mtu=cni.config.mtu)
        return cni.required_prev_result

    def check(self, cni: Attachment[MtuConfig]) -> None:
        cni.container.link(cni.ifname).expect(mtu=cni.config.mtu)

    def delete(self, cni: Attachment[MtuConfig]) -> None:
        """Do nothing: the MTU is deleted with the interface."""
