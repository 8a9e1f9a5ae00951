"""The only door to Linux: namespaces, links, addresses, routes, sysctls and the firewall.

All names follow one contract. `create_x` makes what belongs to one attachment and is undone on failure, `ensure_x`
accepts or makes what is shared and stays, `expect` and `expect_x` raise CniError about the first thing that differs,
`delete_x` is content when the thing is gone, `find_x` may return None where the bare noun raises.
"""
