"""The plugin host-device."""
