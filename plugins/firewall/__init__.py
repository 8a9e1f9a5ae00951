"""The firewall plugin."""
