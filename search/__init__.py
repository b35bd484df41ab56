"""Search recordings for a spoken query, without training: query by example."""
