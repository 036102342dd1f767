"""`python -m bench VERB`, which is `oneseek bench VERB`."""

import sys

from bench.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
