"""The corpora, one file each."""
