"""`python -m experiments.distributed`."""

import sys

from experiments.distributed import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
