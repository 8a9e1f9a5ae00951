"""The CNI plugin bridge."""
