"""loopback: set the loopback interface of the container up."""

from pycni.sdk import Attachment, CniError, Interface, IpConfig, NetConf, Plugin, Result

_LO, _NO_MAC = "lo", "00:00:00:00:00:00"


class Loopback(Plugin[NetConf]):
    """The loopback plugin. It has no options and always uses `lo`, whatever CNI_IFNAME is."""

    def add(self, cni: Attachment[NetConf]) -> Result:
        """Set `lo` up and return its addresses, or in a chain the prevResult."""
        lo = cni.container.link(_LO)
        lo.set(up=True)
        addresses = cni.container.addresses.of(lo)
        if foreign := [address for address in addresses if not address.ip.is_loopback]:
            raise CniError(f'loopback interface found with non-loopback address "{foreign[0]}"')
        if cni.prev_result is not None:
            return cni.prev_result
        first = {address.version: address for address in reversed(addresses)}
        ips = tuple(IpConfig(first[version], interface=0) for version in (4, 6) if version in first)
        return Result((Interface(_LO, _NO_MAC, sandbox=cni.request.netns),), ips)

    def check(self, cni: Attachment[NetConf]) -> None:
        """Raise CniError if `lo` is down."""
        if not cni.container.link(_LO).state.up:
            raise CniError("loopback interface is down")

    def delete(self, cni: Attachment[NetConf]) -> None:
        """Set `lo` down."""
        cni.container.links.set_down(_LO)
