"""Everything with a socket: connections, sessions, routes, limits, faults and the wire log."""
