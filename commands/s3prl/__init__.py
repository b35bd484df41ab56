"""s3prl's command lines."""
