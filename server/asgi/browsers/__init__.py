"""Rules for requests from web pages (hosts, origins, CORS), without keys; `asgi` imports it."""
