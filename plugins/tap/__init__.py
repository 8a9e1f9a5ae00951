"""The tap plugin."""
