"""Predict for others: over http, and on a page in the browser."""
