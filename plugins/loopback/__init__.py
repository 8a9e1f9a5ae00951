"""The CNI plugin loopback."""
