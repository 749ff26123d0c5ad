"""Evasion of text classifiers: which word, which replacement, and how much may change."""
