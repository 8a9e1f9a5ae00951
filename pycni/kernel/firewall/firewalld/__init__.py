"""firewalld as a backend: container addresses become sources of a zone, over D-Bus."""
