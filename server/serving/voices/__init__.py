"""One question to several voices and what they agree on, without endpoints; `api` imports it."""
