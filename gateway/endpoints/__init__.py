"""Hook endpoints: URLs of ours that a provider calls for one connection or one subscription."""
