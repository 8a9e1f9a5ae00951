"""The CNI plugin ptp."""
