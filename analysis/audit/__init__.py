"""Controls that make a number mean something: what else could explain a score."""
