"""Devices as sysfs shows them: the interface of one, and the driver that has it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the machine, whether or not it has an interface."""

    path: Path

    @classmethod
    def on_bus(cls, bus: str, name: str) -> Self:
        """The device of this name on the bus `pci`, such as 0000:00:1f.6, or `auxiliary`, such as mlx5_core.sf.2."""
        return cls(SYS / "bus" / bus / "devices" / name)

    @classmethod
    def at(cls, path: str) -> Self:
        """The device at this path below /sys."""
        return cls(SYS / Path(path).relative_to("/sys"))

    @property
    def exists(self) -> bool:
        """Whether there is such a device."""
        return self.path.exists()

    @property
    def driver(self) -> str:
        """The name of the driver that has it; empty if none has."""
        link = self.path / "driver"
        return link.resolve().name if link.exists() else ""

    @property
    def interface(self) -> str | None:
        """The name of its first interface, of those in the namespace whose sysfs this is; None if it has none.

        That of a virtio device is one level below the device on the PCI bus.
        """
        places = (self.path, *sorted(self.path.glob("virtio*")))
        return next((name for place in places for name in _interfaces(place)), None)


def _interfaces(place: Path) -> Iterator[str]:
    directory = place / "net"
    return iter(sorted(path.name for path in directory.iterdir()) if directory.is_dir() else ())
