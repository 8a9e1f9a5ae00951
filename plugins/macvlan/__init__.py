"""The macvlan plugin."""
