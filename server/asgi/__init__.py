"""The ASGI application (composition, middleware, listening), without endpoints; `cli` imports it."""
