"""Extract from a raw message the words that show its language, without detecting the language. `routing`
imports this package.
"""
