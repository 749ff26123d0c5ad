"""Defenses of what is published: wrappers that change a classifier's answers, so that a copy learns less from them."""
