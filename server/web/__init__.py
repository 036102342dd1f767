"""Serves the web page for people: its static files, with their headers. The page itself uses the HTTP API;
only `server.asgi` imports this package.
"""
