"""Read GPT-SW3's tokenizer from its SentencePiece file, without sentencepiece. Everything may import it."""
