"""One html page of runs."""
