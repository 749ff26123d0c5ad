"""Gradient attacks in a ball of a given size: FGSM, PGD, Auto-PGD, transfer and universal perturbations."""
