"""The dhcp plugin."""
