"""The dummy plugin."""
