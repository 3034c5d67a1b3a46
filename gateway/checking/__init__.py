"""Checks at the provider: what is in doubt is asked about, and what the answer means is told to the machine."""
