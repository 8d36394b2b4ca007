"""`python -m experiments.device_check`."""

import os
import sys

from experiments.device_check import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit, which would wait for abandoned compilations.
    os._exit(status)
