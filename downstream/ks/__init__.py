"""Which keyword is this, if any?"""
