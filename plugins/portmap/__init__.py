"""The plugin portmap."""
