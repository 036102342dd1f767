"""Bodies in, streams of events out, without any endpoint's fields; `api` imports it."""
