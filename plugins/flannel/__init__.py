"""The flannel plugin."""
