"""host-device: a link of the host goes into the container, and comes home as it was.

container            host
eth0 ◄────────────── ens1        before: /run/cni/host-device/<container>_eth0.json
"""

import logging
from dataclasses import replace
from functools import partial

from pycni.sdk import Attachment, CniError, Code, Interface, Namespace, Network, Plugin, Result, SavedLink, StateFile

from . import memory
from .memory import Memory
from .selection import HostDeviceConfig, Selector

log = logging.getLogger(__name__)


class HostDevice(Plugin[HostDeviceConfig]):
    """The plugin: the device is the container's alone for as long as it lives."""

    config = HostDeviceConfig

    def add(self, cni: Attachment[HostDeviceConfig]) -> Result:
        """Remember what the device is like, move it, give it its addresses; one that DPDK drives stays."""
        host, container, selector = cni.host, cni.container, Selector.required(cni.config)
        if cni.config.uses_dpdk:
            return _result_by_name(cni)
        container.links.expect_absent(cni.ifname)
        device = selector.find(host)
        if device is None:
            raise CniError(f"failed to find host device: {selector}: link not found", details=_who_has(cni, selector))
        remembered, file = Memory.of(device, selector, cni), memory.file_of(cni)
        cni.journal.change(
            f"remember what {device} is like",
            partial(file.write, remembered.to_json()),
            partial(_forget_what_is_home, host, remembered, file),
        )
        eth = host.link_moves.create(device, container, cni.ifname, remembered.home)
        lease = cni.ipam.add()  # only now: a DHCP client needs the link
        container.addresses.configure(eth, lease.cidrs, lease.resolved_routes(), on_lan=True)
        return cni.result(eth, lease=lease, on=eth)

    def check(self, cni: Attachment[HostDeviceConfig]) -> None:
        """See that the container has the device that it was given, up, with its addresses and routes."""
        cni.ipam.check()
        if cni.config.uses_dpdk:
            cni.required_prev_result  # noqa: B018 - says so if there is none
            return
        eth = cni.container.link(cni.ifname)
        remembered = memory.find(memory.file_of(cni))
        name = remembered.name if remembered else cni.config.device  # the Go plugin remembers it by the alias alone
        eth.expect(up=True, **({"alias": name} if name else {}))
        cni.expect_prev_result()

    def delete(self, cni: Attachment[HostDeviceConfig]) -> None:
        """Give the addresses back, while a DHCP client still has the link, and bring the device home."""
        cni.ipam.delete()
        file = memory.file_of(cni)
        remembered = memory.find(file)
        if remembered is not None:
            cni.journal.attempt(f"bring {remembered.name} home", partial(_bring_home, cni, remembered, file))
        else:
            cni.journal.attempt("bring home what the Go plugin moved", partial(_bring_home_by_alias, cni))
            cni.journal.attempt(f"remove {file}", file.remove)  # it may be damaged

    def gc(self, cni: Network[HostDeviceConfig]) -> None:
        """Bring home the devices of attachments that are not valid any more, wherever they are."""
        stale = cni.stale
        cni.ipam.gc_before_links()
        for file, remembered in memory.all_in(cni.config.data_dir):
            if stale.owns(remembered.owner):
                cni.journal.attempt(f"bring {remembered.name} home", partial(_bring_home, cni, remembered, file))
        cni.ipam.gc()

    def status(self, cni: Network[HostDeviceConfig]) -> None:
        """Ready if IPAM is, and the device that is configured is there; that a container has it is as it should be."""
        cni.ipam.status()
        try:
            selector = cni.config.selector
            missing = selector and not cni.config.uses_dpdk and selector.find(cni.host) is None
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None
        if selector and missing and not _who_has(cni, selector):
            raise CniError(f"failed to find host device: {selector}: link not found", code=Code.PLUGIN_NOT_AVAILABLE)


def _result_by_name(cni: Attachment[HostDeviceConfig]) -> Result:
    """The addresses, for whatever the program in the container makes of the device under the interface's name."""
    result = cni.result(lease=cni.ipam.add())
    eth = Interface(cni.ifname, sandbox=cni.request.netns)
    return replace(result, interfaces=(eth,), ips=tuple(replace(ip, interface=0) for ip in result.ips))


def _who_has(cni: Network[HostDeviceConfig], selector: Selector) -> str:
    """Which container has the device, in words; empty if none is known to."""
    for _, remembered in memory.all_in(cni.config.data_dir):
        if str(selector) in (remembered.selector, f'device "{remembered.name}"', f'hwaddr "{remembered.home.mac}"'):
            return f"{remembered.ifname} of container {remembered.container_id} is this device"
    return ""


def _bring_home(cni: Network[HostDeviceConfig], remembered: Memory, file: StateFile) -> None:
    """From the container's namespace, or from where the kernel has put it when that was gone."""
    host, home = cni.host, remembered.home
    there = cni.find_namespace(remembered.cookie, cni.request.netns_path, remembered.netns)
    lent = there.link_moves.find(home, remembered.ifname) if there is not None else None
    if lent is not None:
        host.link_moves.move_back(lent, home)
    elif not host.link_moves.restore_returned(home, wait=remembered.physical and there is None) and remembered.physical:
        log.warning("%s is neither in %s nor at home: GC will look again", home.name, remembered.netns)
        return
    file.remove()


def _bring_home_by_alias(cni: Attachment[HostDeviceConfig]) -> None:
    """What has no file here: the Go plugin remembers nothing but the old name, as the alias."""
    conf, eth = cni.config, cni.find_owned_link()
    if eth is None or not SavedLink.alias_is_name(eth):
        return
    is_it = cni.is_in_prev_result or eth.state.alias == conf.device or eth.mac == conf.hwaddr
    if is_it and not _is_anothers(cni):
        cni.host.link_moves.move_back(eth, SavedLink(eth.state.alias))


def _is_anothers(cni: Attachment[HostDeviceConfig]) -> bool:
    """Whether the path of the namespace leads to another container by now, which has a device of its own."""
    here = (cni.container.cookie, cni.ifname)
    return any((other.cookie, other.ifname) == here for _, other in memory.all_in(cni.config.data_dir))


def _forget_what_is_home(host: Namespace, remembered: Memory, file: StateFile) -> None:
    if host.find_link(remembered.name) is not None:
        file.remove()
