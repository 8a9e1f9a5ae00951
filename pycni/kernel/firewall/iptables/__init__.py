"""The iptables backend, in the chains and with the comments of the Go plugins.

Each concern makes rules as text (`listing` knows their form), which `restore` applies by iptables-restore.
"""
