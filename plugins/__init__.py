"""The plugins that come with pycni, one folder each; installed, this package is called pycni_plugins."""
