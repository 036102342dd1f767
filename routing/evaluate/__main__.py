"""Judge the router on labelled text: `python -m routing.evaluate [FOLDER ...] [--half 0|1|all]`.

FOLDER holds .tsv files with lines `LABEL<TAB>TEXT`, with \\n, \\t and \\\\ escaped; by default the texts
of the project. Weights were fitted on half 0; half 1 was kept back and is judged by default.
"""

from __future__ import annotations

from routing.evaluate.report import main

if __name__ == "__main__":
    main()
