"""What can be done to a model through the data that it learns from."""
