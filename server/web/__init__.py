"""The page for people: its files and how they are sent, without the API's work; only `asgi` imports it."""
