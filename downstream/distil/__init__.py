"""Distillation: what would a larger model have made of this?"""
