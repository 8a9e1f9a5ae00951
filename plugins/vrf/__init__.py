"""The plugin vrf."""
