"""What pages in a browser may ask (hosts, origins, CORS), without keys; `asgi` imports it."""
