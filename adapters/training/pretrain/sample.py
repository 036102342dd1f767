"""Take a sample of text from the corpora to train a tokenizer on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from adapters.training.pretrain.corpus import Corpus, CorpusPosition, Piece


def sample_texts(corpora: Sequence[Corpus], size: int, seed: int) -> Iterator[str]:
    """Yield about `size` characters of training text, divided among the corpora by their weights. Held-out
    documents are left out.

    `seed` decides the order in which files are read. Each file is read from its beginning.
    """
    total = sum(corpus.weight for corpus in corpora)
    for corpus in corpora:
        left = size * corpus.weight / total
        order = list(range(len(corpus.files)))
        random.Random(seed).shuffle(order)
        for found, _ in corpus.pieces(order, CorpusPosition()):
            if left <= 0:
                break
            if isinstance(found, Piece) and not found.held:
                for text in [found.text] if found.text else [one.content for one in found.messages]:
                    left -= len(text)
                    yield text
