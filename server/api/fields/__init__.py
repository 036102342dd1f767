"""Every field of every request and how JSON becomes one, without its meaning; `api` imports it."""
