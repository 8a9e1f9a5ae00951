"""Netlink transport: sockets, encoding and decoding of rtnetlink messages, and the parts of pyroute2 that they need."""
