"""One thin module per command. Flags and the environment are read here and nowhere else."""
