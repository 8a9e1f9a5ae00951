"""The configuration of host-device, and the selection of a host device by the first selector that is set."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pycni.sdk import AfterValidator, CniError, ConfigError, Device, Field, Model, NetConf, OptionalIfname

if TYPE_CHECKING:
    from pycni.sdk import Link, Namespace

_OCTETS = re.compile(r"[0-9a-f]{2}(([:-][0-9a-f]{2}){5}|([:-][0-9a-f]{2}){7}|([:-][0-9a-f]{2}){19})")
_QUADS = re.compile(r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}")
_BUS_ADDRESS = re.compile(r"\w[\w.:\-]*")
_KERNEL_DEVICES = "/sys/devices/"
_DPDK_DRIVERS = frozenset({"vfio-pci", "uio_pci_generic", "igb_uio"})


def _hardware_address(text: str) -> str:
    lower = text.lower()
    if text and not (_OCTETS.fullmatch(lower) or _QUADS.fullmatch(lower)):
        raise ValueError(f'failed to parse MAC address "{text}": use 6 octets, or 8 or 20 for InfiniBand')
    return bytes.fromhex(re.sub("[-:.]", "", lower)).hex(":")


def _kernel_path(text: str) -> str:
    if text and (not text.startswith(_KERNEL_DEVICES) or ".." in text.split("/")):
        raise ValueError(f'kernel device path "{text}" must be absolute and begin with {_KERNEL_DEVICES}')
    return text


def _bus_address(text: str) -> str:
    if text and not _BUS_ADDRESS.fullmatch(text):
        raise ValueError(f'"{text}" is not a bus address such as 0000:00:1f.6 or mlx5_core.sf.2')
    return text


BusAddress = Annotated[str, AfterValidator(_bus_address)]


class HostDeviceRuntimeConfig(Model):
    """The `runtimeConfig` object: the device that the runtime chose (capability `deviceID`)."""

    device_id: BusAddress = Field("", alias="deviceID")


class HostDeviceConfig(NetConf):
    """Configuration of host-device. README.md describes the options."""

    device: OptionalIfname = ""
    hwaddr: Annotated[str, AfterValidator(_hardware_address)] = ""
    kernelpath: Annotated[str, AfterValidator(_kernel_path)] = ""
    pci_bus_id: BusAddress = Field("", alias="pciBusID")
    dpdk_mode: bool = Field(False, alias="DPDKMode")
    runtime_config: HostDeviceRuntimeConfig = HostDeviceRuntimeConfig()
    data_dir: str = "/run/cni/host-device"

    @property
    def selector(self) -> "DeviceSelector | None":
        """Return the first selector that is set, in the Go plugin's order; None if none is.

        Raise CniError if `deviceID` does not exist.
        """
        options = {"device": self.device, "hwaddr": self.hwaddr, "kernelpath": self.kernelpath, **self._bus_device}
        return next((DeviceSelector(option, value) for option, value in options.items() if value), None)

    @property
    def uses_dpdk(self) -> bool:
        """Return whether a DPDK program in the container drives the device, so that there is no link to move."""
        address = self._bus_device.get("pciBusID")
        return self.dpdk_mode or (bool(address) and Device.on_bus("pci", str(address)).driver in _DPDK_DRIVERS)

    @property
    def _bus_device(self) -> dict[str, str]:
        """Return the option and the bus address of the device. `deviceID` of the runtime overrides `pciBusID`."""
        requested = self.runtime_config.device_id
        if not requested:
            return {"pciBusID": self.pci_bus_id}
        for bus, option in (("pci", "pciBusID"), ("auxiliary", "deviceID")):
            if Device.on_bus(bus, requested).exists:
                return {option: requested}
        raise CniError(
            f"runtime config DeviceID {requested} not found or unsupported",
            details="neither /sys/bus/pci/devices nor /sys/bus/auxiliary/devices contains the device",
        )


@dataclass(frozen=True, slots=True)
class DeviceSelector:
    """An option that selects a device, and its value."""

    option: str
    value: str

    @classmethod
    def required(cls, conf: HostDeviceConfig) -> "DeviceSelector":
        """Return the selector of the configuration. Raise ConfigError if none is set."""
        if (selector := conf.selector) is None:
            raise ConfigError(
                'specify either "device", "hwaddr", "kernelpath" or "pciBusID"',
                details="or let the runtime choose the device with the capability deviceID",
            )
        return selector

    def __str__(self) -> str:
        return f'{self.option} "{self.value}"'

    def find(self, host: "Namespace") -> "Link | None":
        """Return the link of the device; None if the host has none. Raise CniError if the device does not exist."""
        if self.option == "device":
            return host.find_link(self.value)
        if self.option == "hwaddr":
            found = [link for link in host.links.all() if link.mac == self.value]
            # VLANs and the like can have the MAC address of their device.
            return min(found, key=lambda link: bool(link.state.kind), default=None)
        device = self._device
        if not device.exists:
            raise CniError(f"failed to find host device: {self}: {device.path} does not exist")
        name = device.interface
        return host.find_link(name) if name else None

    @property
    def _device(self) -> Device:
        if self.option == "kernelpath":
            return Device.at(self.value)
        return Device.on_bus("pci" if self.option == "pciBusID" else "auxiliary", self.value)
