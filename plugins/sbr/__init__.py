"""The plugin sbr."""
