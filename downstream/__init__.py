"""What is asked: one folder for each task."""
