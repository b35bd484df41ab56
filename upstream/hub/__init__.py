"""Models in the hub's format: what a family says of itself, and building any of them."""
