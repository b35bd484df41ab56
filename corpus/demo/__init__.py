"""Miniatures of the corpora, spoken by a synthesiser."""
