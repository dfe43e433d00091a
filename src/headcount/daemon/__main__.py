"""`python -m headcount.daemon --home HOME`: the program `headcountd`."""

import os
import sys

from headcount.daemon.program import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for an agent's end would hold up an ordinary exit
