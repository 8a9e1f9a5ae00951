"""The tuning plugin."""
