"""Monitors of an oracle: they see the queries of each client and detect those that look like an attack."""
