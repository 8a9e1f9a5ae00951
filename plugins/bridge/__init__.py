"""The bridge plugin."""
