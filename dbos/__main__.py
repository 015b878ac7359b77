"""`python -m dbos`: the same as the command `dbos`."""

import sys

from dbos.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
