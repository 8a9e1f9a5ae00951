"""The firewall: masquerading, host ports, forwarding and isolation by nftables, iptables or firewalld."""
