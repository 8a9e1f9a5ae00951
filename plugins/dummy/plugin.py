"""dummy: give a container a link that leads nowhere, to hold addresses.

container
eth0 (dummy)
"""

from pycni.sdk import Attachment, Link, LinkPlugin, NetConf


class DummyConfig(NetConf):
    """The options of dummy: none of its own."""

    needs_addresses = "dummy interface requires an IPAM configuration"


class Dummy(LinkPlugin[DummyConfig]):
    """The plugin: a link without any other end."""

    config = DummyConfig
    kind = "dummy"
    on_lan = False

    def create_link(self, cni: Attachment[DummyConfig]) -> Link:
        """Make it."""
        return cni.container.create_link(cni.ifname, self.kind, cni.owner)
