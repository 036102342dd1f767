"""Defines every request's fields and converts JSON to them, without acting on them; `api` imports it."""
