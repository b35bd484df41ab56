"""Which of the speakers heard in training is this?"""
