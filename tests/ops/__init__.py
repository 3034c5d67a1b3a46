"""How the service is run: schema versions, processes, commands, deploy files."""
