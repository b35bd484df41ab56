"""Heads that are computed, not trained: convex problems solved to the end, the same numbers every time."""
