"""The host-local plugin."""
