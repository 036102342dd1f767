"""The verbs of `oneseek bench` and their command-line flags; other packages do the measuring. Only
`bench.__main__` and `oneseek bench` import this package.
"""
