"""Grammars that answers keep to, from a client's words to masks over tokens, without HTTP; `engines` and
above import it.
"""
