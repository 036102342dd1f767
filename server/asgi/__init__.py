"""The ASGI application: its composition, middleware and listening sockets, but not its endpoints; `cli`
imports this package.
"""
