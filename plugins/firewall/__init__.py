"""The CNI plugin firewall."""
