"""HTTP connections below ASGI (limits of size, number and time), without endpoints; `asgi` imports it."""
