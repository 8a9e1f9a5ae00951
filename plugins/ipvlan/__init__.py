"""The CNI plugin ipvlan."""
