"""The firewall by nftables: few static rules, and sets and maps in which an attachment is elements with its label.

Each module is about one thing that an attachment has in the firewall, with the same functions: `create`, `expect`
and `delete`. The package `pycni.kernel.firewall.iptables` has the same modules for those who ask for iptables by name.
"""
