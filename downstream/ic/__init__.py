"""Intent classification: what is the speaker asking for, slot by slot?"""
