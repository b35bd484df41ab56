"""What knows no speech: errors, options, files, run folders."""
