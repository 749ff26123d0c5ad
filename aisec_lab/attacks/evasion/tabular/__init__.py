"""Attacks on tables, within the constraints of their fields and a budget."""
