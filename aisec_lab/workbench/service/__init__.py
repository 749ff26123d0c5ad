"""The scoring service behind `aisec serve`: who may ask, how often, what, and what happens to a suspicious request."""
