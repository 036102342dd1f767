"""Convert a request's fields to an engine request, without any I/O; `api` imports it."""
