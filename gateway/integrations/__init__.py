"""Integrations: the app registrations at providers that this deployment takes deliveries for."""
