"""The wire: OpenAI's types and endpoints, without the work they ask for; only `asgi` and above import it."""
