"""Norm balls, and exact projections onto ball and box."""
