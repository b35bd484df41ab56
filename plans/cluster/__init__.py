"""Plans on a cluster: each run a job of Slurm's."""
