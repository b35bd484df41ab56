"""Slot filling."""
