"""Phone recognition."""
