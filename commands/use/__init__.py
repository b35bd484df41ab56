"""What uses a finished run: one file for each verb."""
