"""Miniature corpora in their official layouts, spoken by a synthesiser."""
