"""The server as an application of Ray Serve, without an engine's own code; only `deploy/ray` imports it."""
