"""The upstreams, a file for each family of models."""
