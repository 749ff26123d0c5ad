"""What is done about poisoned data before and while a model learns from them."""
