"""Makes the OpenAPI document from the endpoints' fields, and the page that shows the document. Only
`server.asgi` imports this package.
"""
