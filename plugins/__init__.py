"""Names of tasks, upstreams and corpora: ours, typed and installed ones."""
