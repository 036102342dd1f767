"""The verbs of the `oneseek` command line, one module each."""
