"""Checks which web pages may use the server (hosts, origins, CORS), but not API keys; `asgi` imports this
package.
"""
