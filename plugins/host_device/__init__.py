"""The host-device plugin."""
