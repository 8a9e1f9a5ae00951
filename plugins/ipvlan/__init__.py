"""The ipvlan plugin."""
