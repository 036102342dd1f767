"""A server under floods and overload: fairness and refusals over HTTP; nothing imports it but its own commands."""
