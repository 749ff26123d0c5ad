"""Attacks on tables: what each field may become, and at what cost."""
