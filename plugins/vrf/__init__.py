"""The vrf plugin."""
