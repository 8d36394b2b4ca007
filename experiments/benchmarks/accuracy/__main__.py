"""`python -m experiments.benchmarks.accuracy`."""

import sys

from experiments.benchmarks.accuracy import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
