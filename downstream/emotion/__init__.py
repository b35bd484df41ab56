"""Which emotion is in this utterance?"""
