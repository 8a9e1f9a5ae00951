"""The CNI plugin dhcp."""
