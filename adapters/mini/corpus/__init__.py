"""The small world that the mini base is taught: data files in `data/`, and the modules that deal them out."""
