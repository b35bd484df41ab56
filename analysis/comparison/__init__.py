"""Two systems, utterance by utterance."""
