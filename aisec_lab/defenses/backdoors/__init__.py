"""Defenses against backdoors that work on a finished model: find the trigger, remove it, or detect its inputs."""
