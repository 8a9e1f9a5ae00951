"""The loopback plugin."""
