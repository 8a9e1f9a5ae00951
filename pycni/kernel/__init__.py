"""Access to Linux: network namespaces, links, addresses, routes, sysctls and the firewall.

The prefix of a name says what a function does:

    create_   create something that belongs to one attachment; a failed ADD deletes it again
    ensure_   create something shared unless it exists; it stays
    expect_   raise CniError for the first difference
    delete_   delete something; it is no error if it does not exist
    find_     return the object, or None if it does not exist; the bare noun, as in `link("eth0")`, raises instead
"""
