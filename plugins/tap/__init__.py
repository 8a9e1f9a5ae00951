"""The CNI plugin tap."""
