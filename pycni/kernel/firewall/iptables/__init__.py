"""The firewall by iptables, for those who ask for it by name: the chains and comments are the Go plugins' own.

The modules and functions are those of `pycni.kernel.firewall.nftables`: `create`, `expect`, `delete`. Rules are text
made by pure functions (`listing.py` knows their form); `restore.py` has them applied.
"""
