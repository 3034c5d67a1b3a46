"""Adoption and exit: connections that were made elsewhere come in with their tokens, and leave again."""
