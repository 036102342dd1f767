"""The server: its HTTP API, its engines and its command line, without any training code. No code outside
`server` may import it.
"""
