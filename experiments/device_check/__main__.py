"""`python -m experiments.device_check`."""

import sys

from experiments.device_check import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
