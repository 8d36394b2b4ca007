"""`python -m experiments.placement`."""

import sys

from experiments.placement import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
