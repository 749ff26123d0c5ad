"""What can be done about a backdoor once the model is finished."""
