"""The CNI plugin static."""
