"""Renders the engine's output as JSON and events in OpenAI's formats, without sending them. The endpoints
import this package.
"""
