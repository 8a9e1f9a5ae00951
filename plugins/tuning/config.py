"""What can be tuned, and who decides on it."""

from typing import Any, TypeVar

from pycni.sdk import Field, Mac, MacSource, Model, NetConf

T = TypeVar("T")

_INT_MAX = 0x7FFFFFFF


class Settings(Model):
    """What can be tuned; None is not given."""

    sysctl: dict[str, str] | None = None
    mac: Mac | None = None
    promisc: bool | None = None
    mtu: int | None = Field(None, ge=0, le=_INT_MAX)
    allmulti: bool | None = None
    txqlen: int | None = Field(None, alias="txQLen", ge=0, le=_INT_MAX)

    @property
    def of_link(self) -> dict[str, Any]:
        """What to set on the link. No MAC, a MTU of 0 and `promisc: false` leave it as it is."""
        always = {"mac": self.mac or None, "promisc": self.promisc or None, "mtu": self.mtu or None}
        wanted = {**always, "allmulti": self.allmulti, "txqlen": self.txqlen}
        return {key: value for key, value in wanted.items() if value is not None}


class Args(Model):
    """Metadata of the configuration."""

    cni: Settings = Settings()


class TuningConfig(Settings, NetConf):
    """The options of tuning; README.md explains them."""

    data_dir: str = "/run/cni/tuning"
    args: Args = Args()
    runtime_config: MacSource = MacSource()

    def wanted(self, cni_args: dict[str, str]) -> Settings:
        """What counts: args.cni, else runtimeConfig, else CNI_ARGS, else the configuration itself."""
        asked = self.args.cni
        other_macs = self.runtime_config.mac or MacSource.from_cni_args(cni_args) or None
        return Settings(
            sysctl={**(self.sysctl or {}), **(asked.sysctl or {})},
            mac=_first(asked.mac, other_macs, self.mac),
            promisc=_first(asked.promisc, self.promisc),
            mtu=_first(asked.mtu, self.mtu),
            allmulti=_first(asked.allmulti, self.allmulti),
            txqlen=_first(asked.txqlen, self.txqlen),
        )


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
