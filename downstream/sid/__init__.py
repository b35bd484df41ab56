"""Speaker identification: which speaker of the training split is this?"""
