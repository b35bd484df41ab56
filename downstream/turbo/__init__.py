"""Contrastive learning beside a classification of audio and text."""
