"""Secrets at rest: the cipher, and the keyrings it works under."""
