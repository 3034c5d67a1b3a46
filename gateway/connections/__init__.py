"""Connections: one account of one tenant at one integration."""
