"""`python -m headcount.daemon --home HOME`: the program `headcountd`."""

import sys

from headcount.daemon.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
