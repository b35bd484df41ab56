"""Speech recognition of recordings without a text."""
