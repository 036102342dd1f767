"""Grammars that answers keep to: from a client's words to masks over tokens, each tried apart."""
