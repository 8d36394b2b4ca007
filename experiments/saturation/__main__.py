"""`python -m experiments.saturation`."""

import sys

from experiments.saturation import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
