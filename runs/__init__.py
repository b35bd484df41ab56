"""One run: its config, data, training and results."""
