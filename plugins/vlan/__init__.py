"""The vlan plugin."""
