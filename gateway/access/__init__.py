"""Who may ask for what: API keys and the roles they carry."""
