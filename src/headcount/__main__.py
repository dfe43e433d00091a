"""`python -m headcount` is the command `headcount`."""

import sys

from headcount.doors.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
