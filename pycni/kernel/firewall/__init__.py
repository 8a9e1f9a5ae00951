"""The firewall of a network namespace, by nftables, iptables or firewalld.

`facade.Firewall` is what plugins call. It has one attribute per concern (masquerading, host ports, forward rules,
isolation, spoof check). The module of each concern chooses the backend. `protocols` documents what every backend does.
"""
