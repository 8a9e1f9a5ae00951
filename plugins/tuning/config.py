"""The configuration of tuning: the settings, and which source takes precedence."""

from typing import TypeVar, cast

from pycni.sdk import Field, LinkChanges, Mac, MacSource, Model, NetConf

T = TypeVar("T")

_INT_MAX = 0x7FFFFFFF


class TuningSettings(Model):
    """The settings that can be changed. None: not configured."""

    sysctl: dict[str, str] | None = None
    mac: Mac | None = None
    promisc: bool | None = None
    mtu: int | None = Field(None, ge=0, le=_INT_MAX)
    allmulti: bool | None = None
    txqlen: int | None = Field(None, alias="txQLen", ge=0, le=_INT_MAX)

    @property
    def link_settings(self) -> LinkChanges:
        """Return the settings of the link. An empty MAC, an MTU of 0 and `promisc: false` change nothing."""
        nonzero = {"mac": self.mac or None, "promisc": self.promisc or None, "mtu": self.mtu or None}
        settings = {**nonzero, "allmulti": self.allmulti, "txqlen": self.txqlen}
        return cast(LinkChanges, {key: value for key, value in settings.items() if value is not None})


class TuningArgs(Model):
    """The `args` object of the configuration."""

    cni: TuningSettings = TuningSettings()


class TuningConfig(TuningSettings, NetConf):
    """Configuration of tuning. README.md describes the options."""

    data_dir: str = "/run/cni/tuning"
    args: TuningArgs = TuningArgs()
    runtime_config: MacSource = MacSource()

    def effective_settings(self, cni_args: dict[str, str]) -> TuningSettings:
        """Return each setting from args.cni, else runtimeConfig, else CNI_ARGS, else the configuration itself.

        Sysctls of the configuration and of args.cni are merged.
        """
        args = self.args.cni
        runtime_mac = self.runtime_config.mac or MacSource.from_cni_args(cni_args) or None
        return TuningSettings(
            sysctl={**(self.sysctl or {}), **(args.sysctl or {})},
            mac=_first(args.mac, runtime_mac, self.mac),
            promisc=_first(args.promisc, self.promisc),
            mtu=_first(args.mtu, self.mtu),
            allmulti=_first(args.allmulti, self.allmulti),
            txqlen=_first(args.txqlen, self.txqlen),
        )


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
