"""Devices in sysfs: the network interface of a device, and its driver."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the machine, with or without a network interface."""

    path: Path

    @classmethod
    def on_bus(cls, bus: str, name: str) -> Self:
        """Return the device on the bus `pci`, such as 0000:00:1f.6, or `auxiliary`, such as mlx5_core.sf.2."""
        return cls(SYS / "bus" / bus / "devices" / name)

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the device at this path below /sys."""
        return cls(SYS / Path(path).relative_to("/sys"))

    @property
    def exists(self) -> bool:
        """Whether the device exists."""
        return self.path.exists()

    @property
    def driver(self) -> str:
        """The name of the driver that is bound to the device; "" if there is none."""
        link = self.path / "driver"
        return link.resolve().name if link.exists() else ""

    @property
    def interface(self) -> str | None:
        """The name of the first interface of the device, or None if there is none in the namespace of this sysfs.

        The interface of a virtio device is one level below the device on the PCI bus.
        """
        directories = (self.path, *sorted(self.path.glob("virtio*")))
        return next((name for directory in directories for name in _interfaces(directory)), None)


def _interfaces(device: Path) -> Iterator[str]:
    directory = device / "net"
    return iter(sorted(path.name for path in directory.iterdir()) if directory.is_dir() else ())
