"""Masked prediction: which sound is hidden here?"""
