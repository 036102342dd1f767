"""Bodies in, frames and streams out, without any endpoint's fields; `api` imports it."""
