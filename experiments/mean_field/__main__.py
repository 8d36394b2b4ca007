"""`python -m experiments.mean_field`."""

import sys

from experiments.mean_field import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
