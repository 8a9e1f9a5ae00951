"""Which device of the host is meant: by the first selector that is given, in the order of the Go plugin."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pycni.sdk import AfterValidator, CniError, ConfigError, Device, Field, Model, NetConf, OptionalIfname

if TYPE_CHECKING:
    from pycni.sdk import Link, Namespace

_OCTETS = re.compile(r"[0-9a-f]{2}(([:-][0-9a-f]{2}){5}|([:-][0-9a-f]{2}){7}|([:-][0-9a-f]{2}){19})")
_QUADS = re.compile(r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}")
_PLACE = re.compile(r"\w[\w.:\-]*")
_KERNEL_DEVICES = "/sys/devices/"
_DPDK_DRIVERS = frozenset({"vfio-pci", "uio_pci_generic", "igb_uio"})


def _hardware_address(text: str) -> str:
    lower = text.lower()
    if text and not (_OCTETS.fullmatch(lower) or _QUADS.fullmatch(lower)):
        raise ValueError(f'failed to parse MAC address "{text}": six octets are wanted, or the 8 or 20 of InfiniBand')
    return bytes.fromhex(re.sub("[-:.]", "", lower)).hex(":")


def _kernel_path(text: str) -> str:
    if text and (not text.startswith(_KERNEL_DEVICES) or ".." in text.split("/")):
        raise ValueError(f'kernel device path "{text}" must be absolute and begin with {_KERNEL_DEVICES}')
    return text


def _place_on_a_bus(text: str) -> str:
    if text and not _PLACE.fullmatch(text):
        raise ValueError(f'"{text}" is no place on a bus, such as 0000:00:1f.6 or mlx5_core.sf.2')
    return text


Place = Annotated[str, AfterValidator(_place_on_a_bus)]


class RuntimeConfig(Model):
    """What the runtime asks for (capability `deviceID`)."""

    device_id: Place = Field("", alias="deviceID")


class HostDeviceConfig(NetConf):
    """The options of host-device; README.md explains them."""

    device: OptionalIfname = ""
    hwaddr: Annotated[str, AfterValidator(_hardware_address)] = ""
    kernelpath: Annotated[str, AfterValidator(_kernel_path)] = ""
    pci_bus_id: Place = Field("", alias="pciBusID")
    dpdk_mode: bool = Field(False, alias="DPDKMode")
    runtime_config: RuntimeConfig = RuntimeConfig()
    data_dir: str = "/run/cni/host-device"

    @property
    def selector(self) -> "Selector | None":
        """What says which device is meant; None if nothing does. Raises CniError for an unknown deviceID."""
        given = {"device": self.device, "hwaddr": self.hwaddr, "kernelpath": self.kernelpath, **self._on_a_bus}
        return next((Selector(option, value) for option, value in given.items() if value), None)

    @property
    def uses_dpdk(self) -> bool:
        """Whether a program in the container drives the device, past the kernel, so that there is no link to move."""
        address = self._on_a_bus.get("pciBusID")
        return self.dpdk_mode or (bool(address) and Device.on_bus("pci", str(address)).driver in _DPDK_DRIVERS)

    @property
    def _on_a_bus(self) -> dict[str, str]:
        """The device on a bus: that of the runtime, if it asks for one, stands in for that of the configuration."""
        asked = self.runtime_config.device_id
        if not asked:
            return {"pciBusID": self.pci_bus_id}
        for bus, option in (("pci", "pciBusID"), ("auxiliary", "deviceID")):
            if Device.on_bus(bus, asked).exists:
                return {option: asked}
        raise CniError(
            f"runtime config DeviceID {asked} not found or unsupported",
            details="there is no such device in /sys/bus/pci/devices or /sys/bus/auxiliary/devices",
        )


@dataclass(frozen=True, slots=True)
class Selector:
    """An option of the configuration that selects a device, and its value."""

    option: str
    value: str

    @classmethod
    def required(cls, conf: HostDeviceConfig) -> "Selector":
        """The one that counts. Raises ConfigError if none is given."""
        if (selector := conf.selector) is None:
            raise ConfigError(
                'specify either "device", "hwaddr", "kernelpath" or "pciBusID"',
                details="or let the runtime name a device: capability deviceID",
            )
        return selector

    def __str__(self) -> str:
        return f'{self.option} "{self.value}"'

    def find(self, host: "Namespace") -> "Link | None":
        """The link of the device, None if the host has none. Raises CniError if the device itself is missing."""
        if self.option == "device":
            return host.find_link(self.value)
        if self.option == "hwaddr":
            found = [link for link in host.links.all() if link.mac == self.value]
            return min(found, key=lambda link: bool(link.state.kind), default=None)  # what stands on it may share it
        device = self._device
        if not device.exists:
            raise CniError(f"failed to find host device: {self}: there is no {device.path}")
        name = device.interface
        return host.find_link(name) if name else None

    @property
    def _device(self) -> Device:
        if self.option == "kernelpath":
            return Device.at(self.value)
        return Device.on_bus("pci" if self.option == "pciBusID" else "auxiliary", self.value)
