"""The wire: OpenAI's types and endpoints, the legacy endpoints, errors and server-sent events."""
