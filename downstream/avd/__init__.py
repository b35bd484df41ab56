"""Arousal, valence and dominance."""
