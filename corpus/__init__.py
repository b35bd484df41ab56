"""What is heard: corpora, their official layouts and protocols."""
