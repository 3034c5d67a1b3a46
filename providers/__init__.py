"""What third parties really do: one file a provider, data first, then pure code. Nothing here knows the database."""
