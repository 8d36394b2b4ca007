"""`python -m experiments.deploy`."""

import sys

from experiments.deploy import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
