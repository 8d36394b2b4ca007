"""`python -m experiments.percentiles`."""

import sys

from experiments.percentiles import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
