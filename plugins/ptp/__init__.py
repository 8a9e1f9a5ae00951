"""The ptp plugin."""
