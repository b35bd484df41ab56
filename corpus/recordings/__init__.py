"""Recordings of any number: tables, folders and tars, cut into utterances."""
