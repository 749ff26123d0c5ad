"""Smaller networks that answer like a large one: pruning, quantisation, distillation."""
