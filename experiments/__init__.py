"""What normalisation does, shown: `python -m experiments` lists the experiments."""
