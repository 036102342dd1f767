"""Evaluate the router on texts of known language: `python -m routing.evaluate [FOLDER ...] [--half 0|1|all]`.

FOLDER holds .tsv files with lines `LABEL<TAB>TEXT`, with \\n, \\t and \\\\ escaped. Default: the project's
own texts. The router's weights were fitted on half 0 of the texts; by default, the held-out half 1 is
evaluated.
"""

from __future__ import annotations

from routing.evaluate.report import main

if __name__ == "__main__":
    main()
