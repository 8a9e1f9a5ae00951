"""Links, their addresses and routes, policy rules, bridges, VRFs, taps and traffic shaping."""
