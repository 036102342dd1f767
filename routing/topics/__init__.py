"""Find the topic of a question: which adapter's example questions are most like it, without policies.
`routing` imports this package.
"""
