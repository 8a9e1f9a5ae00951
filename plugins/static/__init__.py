"""The static plugin."""
