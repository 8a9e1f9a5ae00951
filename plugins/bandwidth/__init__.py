"""The plugin bandwidth."""
