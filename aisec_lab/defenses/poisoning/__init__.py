"""Defenses against poisoned training data: sanitizers that look for poisoned rows, and robust training."""
