"""The CNI plugin macvlan."""
