"""Many runs in order: folds, seeds, settings, scenarios, papers."""
