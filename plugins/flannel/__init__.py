"""The plugin flannel."""
