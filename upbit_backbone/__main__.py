"""`python -m upbit_backbone`: the command line, also where no script was installed."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
