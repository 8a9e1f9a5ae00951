"""The sbr plugin."""
