"""Device-directed speech: does the speaker talk to the device?"""
