"""pycni: a CNI framework, the CNI reference plugins and the runtime that calls them, in Python."""

__version__ = "0.1.0"
