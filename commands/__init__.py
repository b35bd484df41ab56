"""What is typed: one file for each verb, heavy imports inside the functions that need them."""
