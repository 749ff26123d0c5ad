"""Gradient attacks that look for the smallest perturbation: DDN, FMN, FAB, Carlini & Wagner and others."""
