"""Tokenizers of GPT-SW3, from SentencePiece's file to that of `tokenizers`, without sentencepiece; everything may import it."""
