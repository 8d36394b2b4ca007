"""`python -m experiments.benchmarks.compiled`."""

import sys

from experiments.benchmarks.compiled import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
