"""Tokens on their way out: the check before every read, the refresh of what has expired, reports of what was refused."""
