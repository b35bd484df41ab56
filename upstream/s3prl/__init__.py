"""Upstreams and checkpoints of s3prl."""
