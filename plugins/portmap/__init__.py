"""The portmap plugin."""
