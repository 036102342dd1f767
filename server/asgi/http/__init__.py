"""Connections beneath ASGI (bounds on heads, bodies, numbers, time), without endpoints; `asgi` imports it."""
