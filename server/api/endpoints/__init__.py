"""One module for each group of endpoints, without parsing or rendering; only `asgi` imports them."""
