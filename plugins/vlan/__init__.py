"""The CNI plugin vlan."""
