"""`python -m experiments.why_it_works`."""

import sys

from experiments.why_it_works import STUDY

if __name__ == "__main__":
    sys.exit(STUDY(sys.argv[1:]))
