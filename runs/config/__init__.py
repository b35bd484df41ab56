"""The config of a run: its options, recipes and identity."""
