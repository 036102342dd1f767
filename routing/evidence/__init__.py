"""Score how well the words of a text fit each language (letters, frequencies, lists), without a prior.
`routing` imports this package.
"""
