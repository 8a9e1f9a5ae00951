"""dummy: give a container a dummy interface, which holds addresses and drops all frames.

container
eth0 (dummy)
"""

from pycni.sdk import Attachment, Link, LinkPlugin, NetConf


class DummyConfig(NetConf):
    """Configuration of dummy. It has no options beyond `ipam` and `dns`."""

    needs_addresses = "dummy interface requires an IPAM configuration"


class Dummy(LinkPlugin[DummyConfig]):
    """The dummy plugin."""

    config = DummyConfig
    kind = "dummy"
    on_lan = False

    def create_link(self, cni: Attachment[DummyConfig]) -> Link:
        """Create the dummy interface in the container."""
        return cni.container.links.create(cni.ifname, self.kind, cni.owner)
