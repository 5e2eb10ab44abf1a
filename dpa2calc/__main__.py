"""`python -m dpa2calc`: the same as the command `dpa2calc`."""

import sys

from dpa2calc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
