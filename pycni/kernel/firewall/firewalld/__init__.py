"""The firewalld backend of forward rules: container addresses are sources of a zone. It speaks D-Bus."""
