"""Where the runs of a sweep are trained: in processes of this machine, on a Slurm cluster, or on Ray."""
