"""`python -m experiments.benchmarks`."""

import sys

from experiments.benchmarks import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
