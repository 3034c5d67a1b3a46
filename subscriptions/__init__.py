"""What a connection is kept alive with: its renewal, planned and run. Its webhook subscriptions are to come."""
