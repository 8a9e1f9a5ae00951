"""loopback: set the container's own `lo` up."""

from pycni.sdk import Attachment, CniError, Interface, IpConfig, NetConf, Plugin, Result

_LO, _NO_MAC = "lo", "00:00:00:00:00:00"


class Loopback(Plugin[NetConf]):
    """It knows no options, and works on `lo` whatever CNI_IFNAME says."""

    def add(self, cni: Attachment[NetConf]) -> Result:
        """Set `lo` up and report the addresses that the kernel gave it."""
        lo = cni.container.link(_LO)
        lo.set(up=True)
        addresses = cni.container.addresses(lo)
        if strangers := [address for address in addresses if not address.ip.is_loopback]:
            raise CniError(f'loopback interface found with non-loopback address "{strangers[0]}"')
        if cni.prev_result is not None:
            return cni.prev_result
        first = {address.version: address for address in reversed(addresses)}
        ips = tuple(IpConfig(first[version], interface=0) for version in (4, 6) if version in first)
        return Result((Interface(_LO, _NO_MAC, sandbox=cni.request.netns),), ips)

    def check(self, cni: Attachment[NetConf]) -> None:
        """See that `lo` is up."""
        if not cni.container.link(_LO).state.up:
            raise CniError("loopback interface is down")

    def delete(self, cni: Attachment[NetConf]) -> None:
        """Set `lo` down."""
        cni.container.set_down(_LO)
