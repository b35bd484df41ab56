"""Was this said to the device?"""
