"""Features of frozen upstreams, kept on disk."""
