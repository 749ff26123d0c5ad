"""Defenses of text classifiers."""
