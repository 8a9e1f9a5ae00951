"""host-device: move a network device of the host into a container, and restore it on the host at DEL.

container            host
eth0 ◄────────────── ens1        record: /run/cni/host-device/<container>_eth0.json
"""

import logging
from dataclasses import replace
from functools import partial

from pycni.sdk import Attachment, CniError, Code, Interface, Namespace, Network, Plugin, Result, SavedLink, StateFile

from . import device_record
from .device_record import DeviceRecord
from .selection import DeviceSelector, HostDeviceConfig

log = logging.getLogger(__name__)


class HostDevice(Plugin[HostDeviceConfig]):
    """The host-device plugin."""

    config = HostDeviceConfig

    def add(self, cni: Attachment[HostDeviceConfig]) -> Result:
        """Save the settings of the device, move it into the container and configure its addresses.

        A device with a DPDK driver is not moved.
        """
        host, container, selector = cni.host, cni.container, DeviceSelector.required(cni.config)
        if cni.config.uses_dpdk:
            return _dpdk_result(cni)
        container.links.expect_absent(cni.ifname)
        device = selector.find(host)
        if device is None:
            raise CniError(
                f"failed to find host device: {selector}: link not found", details=_current_user(cni, selector)
            )
        record, file = DeviceRecord.of(device, selector, cni), device_record.file_of(cni)
        cni.journal.change(
            f"save the settings of {device}",
            partial(file.write, record.to_json()),
            partial(_remove_if_on_host, host, record, file),
        )
        eth = host.link_moves.create(device, container, cni.ifname, record.saved_link)
        lease = cni.ipam.add()  # after the move: the DHCP client sends over the link
        container.addresses.configure(eth, lease.cidrs, lease.resolved_routes(), on_lan=True)
        return cni.result(eth, lease=lease, on=eth)

    def check(self, cni: Attachment[HostDeviceConfig]) -> None:
        """Raise CniError unless the container has the device, up, with its addresses and routes."""
        cni.ipam.check()
        if cni.config.uses_dpdk:
            cni.required_prev_result  # noqa: B018 - raises ConfigError if there is none
            return
        eth = cni.container.link(cni.ifname)
        record = device_record.find(device_record.file_of(cni))
        name = record.name if record else cni.config.device  # the Go plugin writes no record, only the alias
        eth.expect(up=True)
        if name:
            eth.expect(alias=name)
        cni.expect_prev_result()

    def delete(self, cni: Attachment[HostDeviceConfig]) -> None:
        """Release the addresses, while the DHCP client still has the link, and return the device to the host."""
        cni.ipam.delete()
        file = device_record.file_of(cni)
        record = device_record.find(file)
        if record is not None:
            cni.journal.attempt(f"return {record.name} to the host", partial(_return_to_host, cni, record, file))
        else:
            what = "return the device that the Go plugin moved to the host"
            cni.journal.attempt(what, partial(_return_by_alias, cni))
            cni.journal.attempt(f"remove {file}", file.remove)  # it may be damaged

    def gc(self, cni: Network[HostDeviceConfig]) -> None:
        """Return the devices of stale attachments to the host, wherever they are."""
        stale = cni.stale
        cni.ipam.gc_before_links()
        for file, record in device_record.all_in(cni.config.data_dir):
            if stale.owns(record.owner):
                cni.journal.attempt(f"return {record.name} to the host", partial(_return_to_host, cni, record, file))
        cni.ipam.gc()

    def status(self, cni: Network[HostDeviceConfig]) -> None:
        """Raise CniError if IPAM is not available, or the device is neither on the host nor in a container."""
        cni.ipam.status()
        try:
            selector = cni.config.selector
            missing = selector and not cni.config.uses_dpdk and selector.find(cni.host) is None
        except CniError as error:
            raise CniError(error.msg, code=Code.PLUGIN_NOT_AVAILABLE, details=error.details) from None
        if selector and missing and not _current_user(cni, selector):
            raise CniError(f"failed to find host device: {selector}: link not found", code=Code.PLUGIN_NOT_AVAILABLE)


def _dpdk_result(cni: Attachment[HostDeviceConfig]) -> Result:
    """Return the name of the interface and the addresses from IPAM, for the DPDK program in the container."""
    result = cni.result(lease=cni.ipam.add())
    eth = Interface(cni.ifname, sandbox=cni.request.netns)
    return replace(result, interfaces=(eth,), ips=tuple(replace(ip, interface=0) for ip in result.ips))


def _current_user(cni: Network[HostDeviceConfig], selector: DeviceSelector) -> str:
    """Return a sentence that says which container has the device; empty if none is known."""
    for _, record in device_record.all_in(cni.config.data_dir):
        if str(selector) in (record.selector, f'device "{record.name}"', f'hwaddr "{record.saved_link.mac}"'):
            return f"the device is {record.ifname} of container {record.container_id}"
    return ""


def _return_to_host(cni: Network[HostDeviceConfig], record: DeviceRecord, file: StateFile) -> None:
    """Move the device back from the container, or restore it where the kernel moved it with the namespace's end."""
    host, saved = cni.host, record.saved_link
    container = cni.find_namespace(record.cookie, cni.request.netns_path, record.netns)
    link = container.link_moves.find(saved, record.ifname) if container is not None else None
    if link is not None:
        host.link_moves.move_back(link, saved)
    elif not host.link_moves.restore_returned(saved, wait=record.physical and container is None) and record.physical:
        log.warning("%s is neither in %s nor on the host; GC tries again", saved.name, record.netns)
        return
    file.remove()


def _return_by_alias(cni: Attachment[HostDeviceConfig]) -> None:
    """Return a device without a record: the Go plugin saves only the old name, as the alias."""
    conf, eth = cni.config, cni.find_owned_link()
    if eth is None or not SavedLink.alias_is_name(eth):
        return
    is_device = cni.is_in_prev_result or eth.state.alias == conf.device or eth.mac == conf.hwaddr
    if is_device and not _belongs_to_other_container(cni):
        cni.host.link_moves.move_back(eth, SavedLink(eth.state.alias))


def _belongs_to_other_container(cni: Attachment[HostDeviceConfig]) -> bool:
    """Return whether the namespace path now belongs to another container, which has a device of its own."""
    interface = (cni.container.cookie, cni.ifname)
    return any((record.cookie, record.ifname) == interface for _, record in device_record.all_in(cni.config.data_dir))


def _remove_if_on_host(host: Namespace, record: DeviceRecord, file: StateFile) -> None:
    if host.find_link(record.name) is not None:
        file.remove()
