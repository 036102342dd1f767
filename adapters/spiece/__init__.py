"""GPT-SW3's tokenizer from its SentencePiece file, without sentencepiece; everything may import it."""
