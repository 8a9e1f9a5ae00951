"""The command pycni."""
