"""Everything about adapters and bases except serving: file formats, discovery, training and merging.
`routing` and `server` import this package.
"""
