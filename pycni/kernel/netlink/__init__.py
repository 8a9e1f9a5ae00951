"""rtnetlink: sockets, and encoding and decoding of messages, with pyroute2 for the rare ones."""
