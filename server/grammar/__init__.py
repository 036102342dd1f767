"""Grammars for structured output, from a client's schema to token masks, without HTTP; `engines` and above
import it.
"""
