"""From a request's fields to what the engine is asked, without any I/O; `api` imports it."""
