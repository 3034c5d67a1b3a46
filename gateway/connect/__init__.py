"""Connecting accounts by OAuth: from a link for one end user to sealed tokens of a connection (PROTOCOLS 7)."""
