"""A finished run: predict, evaluate, export."""
