"""Features of corpora beyond one machine: a plan, shards, and their merge."""
