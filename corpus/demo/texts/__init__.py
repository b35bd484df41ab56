"""What the miniatures say."""
