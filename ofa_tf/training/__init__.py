"""Progressive shrinking, recalibration and evaluation of subnets, checkpoints."""
