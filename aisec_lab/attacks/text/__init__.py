"""Evasion of text classifiers: which word to change, by what, and how much may change."""
