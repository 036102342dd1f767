"""HTTP connections below ASGI, with limits on size, number and time, but without endpoints; `asgi` imports
this package.
"""
