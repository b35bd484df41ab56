"""A run on the hub: its card, the licences that it inherits, and the upload."""
