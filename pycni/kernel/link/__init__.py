"""Links and what belongs to a link: addresses, routes, rules, queueing disciplines, VRFs, taps."""
