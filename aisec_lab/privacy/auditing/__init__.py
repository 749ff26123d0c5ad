"""Audits: how much privacy is lost for certain, whatever has been promised."""
