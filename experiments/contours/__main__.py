"""`python -m experiments.contours`."""

import sys

from experiments.contours import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
