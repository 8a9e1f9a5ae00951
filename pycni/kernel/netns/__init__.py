"""Network namespaces: open handles, and what is opened through a handle: sockets, sysctls, locks."""
