"""Poisoning attacks: changes of the training data, or of clients' updates in federated learning."""
