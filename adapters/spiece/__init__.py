"""Read GPT-SW3's tokenizer from its SentencePiece file, without the library sentencepiece. Every package may
import this package.
"""
