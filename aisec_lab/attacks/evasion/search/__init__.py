"""What the evasion attacks share: goals, losses, gradients, and the best point so far of each row."""
