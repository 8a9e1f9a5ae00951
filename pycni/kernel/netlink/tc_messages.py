"""The traffic control messages of pyroute2, with the 64-bit rates and the bursts in bytes of tbf, which it lacks."""

from typing import Any

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.tcmsg import tcmsg


class TbfOptions(nla):  # type: ignore[misc] # pyroute2 has no types
    """The attributes of a tbf (linux/pkt_sched.h), without rate tables: the kernel ignores them since 3.9."""

    nla_map = (
        ("TCA_TBF_UNSPEC", "none"),
        ("TCA_TBF_PARMS", "parms"),
        ("TCA_TBF_RTAB", "hex"),
        ("TCA_TBF_PTAB", "hex"),
        ("TCA_TBF_RATE64", "uint64"),
        ("TCA_TBF_PRATE64", "uint64"),
        ("TCA_TBF_BURST", "uint32"),
        ("TCA_TBF_PBURST", "uint32"),
        ("TCA_TBF_PAD", "hex"),
    )

    class parms(nla):  # type: ignore[misc] # noqa: N801 - nla_map refers to this name
        """The fixed part: struct tc_tbf_qopt."""

        fields = (
            *(
                ("cell_log", "B"),
                ("linklayer", "B"),
                ("overhead", "H"),
                ("cell_align", "h"),
                ("mpu", "H"),
                ("rate", "I"),
            ),
            *(("peak_cell_log", "B"), ("peak_linklayer", "B"), ("peak_overhead", "H")),
            *(("peak_cell_align", "h"), ("peak_mpu", "H"), ("peak_rate", "I")),
            *(("limit", "I"), ("buffer", "I"), ("mtu", "I")),
        )


class TcMessage(tcmsg):  # type: ignore[misc] # pyroute2 has no types
    """A message about a qdisc or a filter."""

    @staticmethod
    def get_options(message: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the class of the attribute TCA_OPTIONS, which depends on the kind of qdisc."""
        if message.get_attr("TCA_KIND") == "tbf":
            return TbfOptions
        return tcmsg.get_options(message, *args, **kwargs)
