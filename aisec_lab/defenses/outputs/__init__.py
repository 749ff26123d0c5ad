"""Output defenses: they change what a classifier publishes, so that an attacker learns less from it."""
