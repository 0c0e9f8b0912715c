"""`python -m sipwire` is the same as `sipwire`."""

import sys

from sipwire.cli import main

if __name__ == "__main__":
    sys.exit(main())
