"""The service: HTTP in, one durable log, states, events out."""
