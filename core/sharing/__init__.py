"""Runs and models of the hub: their names, what is fetched of them, and the hashes that it is checked with."""
