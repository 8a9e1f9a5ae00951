"""The CNI plugin dummy."""
