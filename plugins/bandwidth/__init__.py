"""The bandwidth plugin."""
