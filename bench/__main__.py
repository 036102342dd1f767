"""Run a benchmark as `python -m bench VERB`, which does the same as `oneseek bench VERB`."""

import sys

from bench.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
