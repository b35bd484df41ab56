"""What a run is told: its options, recipes and identity."""
