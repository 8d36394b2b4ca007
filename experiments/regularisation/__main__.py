"""`python -m experiments.regularisation`."""

import sys

from experiments.regularisation import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
