"""Requests made to hold a server up, and what others wait meanwhile; nothing imports it but tests."""
