"""Turn a corpus into an endless stream of token rows without padding. Documents are shuffled in bounded
memory, and a run can resume at the exact token.

Documents are shuffled within blocks of bounded size. The order depends only on the seed, the number of the
pass, and the block's position. So a position is saved as a few numbers, and to resume, only one block must be
read again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from adapters.training.finetune.conversations import Conversation
from adapters.training.finetune.examples import IGNORED, examples
from adapters.training.loop.options import OptionError
from adapters.training.pretrain.corpus import Corpus, CorpusPosition, CorpusRejection, Piece

_TOGETHER = 32
"""Number of documents, or pieces of long documents, that are tokenized in one call."""


@dataclass(frozen=True, slots=True)
class DocumentTokens:
    """Tokens of a document or row: token ids, whether each counts for the loss, and its position in its
    document. The three arrays have the same length.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.bool_]
    positions: NDArray[np.int64]


class Encode:
    """Encodes documents with the tokenizer of a base model. Text gets begin and end tokens, and all its
    tokens count for the loss. Conversations follow the chat template, and only answers count for the loss.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._fast = Tokenizer.from_str(cast("Any", tokenizer).backend_tokenizer.to_str())
        self._begin, self._end = (
            [] if token is None else [cast("int", token)]
            for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        )

    @property
    def fill(self) -> int:
        """Token id that fills unused places in a batch."""
        return (self._end or [0])[0]

    def __call__(self, pieces: Sequence[Piece]) -> list[DocumentTokens]:
        """Tokenize the documents or pieces, and return the tokens of each."""
        texts = [piece.text for piece in pieces if not piece.messages]
        encoded = iter(self._fast.encode_batch_fast(texts, add_special_tokens=False))
        return [
            self._conversation(piece) if piece.messages else self._text(piece, next(encoded).ids)
            for piece in pieces
        ]

    def _text(self, piece: Piece, ids: list[int]) -> DocumentTokens:
        whole = [*(self._begin if piece.first else ()), *ids, *(self._end if piece.last else ())]
        return _tokens(whole, [False, *[True] * (len(whole) - 1)][: len(whole)])

    def _conversation(self, piece: Piece) -> DocumentTokens:
        messages = tuple({"role": one.role, "content": one.content} for one in piece.messages)
        found = [
            _tokens(one["input_ids"], [label != IGNORED for label in one["labels"]])
            for one in examples(self._tokenizer, Conversation(messages))
        ]
        return DocumentTokens(
            np.concatenate([one.ids for one in found]),
            np.concatenate([one.counts for one in found]),
            np.concatenate([one.positions for one in found]),
        )


def _tokens(ids: Sequence[int], counts: Sequence[bool]) -> DocumentTokens:
    return DocumentTokens(
        np.array(ids, np.int64), np.array(counts, np.bool_), np.arange(len(ids), dtype=np.int64)
    )


class DocumentStream:
    """Yields the tokenized documents of a corpus, pass after pass, in shuffled order."""

    def __init__(
        self, corpus: Corpus, encode: Encode, *, seed: int, shuffle: int, held: bool = False
    ) -> None:
        self._corpus, self._encode, self._seed, self._shuffle, self._held = (
            corpus,
            encode,
            seed,
            shuffle,
            held,
        )
        self.passes = 0
        """Number of completed passes through the corpus."""
        self.refused = 0
        """Number of lines and files so far that are not documents."""
        self.problem: CorpusRejection | None = None
        self._start = self._next = CorpusPosition()
        self._refused_before = 0
        self._index = 0
        self._block: list[Piece] | None = None
        self._encoded: dict[int, DocumentTokens] = {}
        self._found = False

    def state(self) -> dict[str, Any]:
        """Return the position of the next document as JSON, to save it in a checkpoint."""
        return {
            "passes": self.passes,
            "block": list(self._start),
            "index": self._index,
            "refused": self._refused_before,
            "found": self._found,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the document that would have come next when `state` was called."""
        self.passes, self._index, self._found = state["passes"], state["index"], state["found"]
        self.refused = self._refused_before = state["refused"]
        self._start, self._block = CorpusPosition(*state["block"]), None

    def next(self) -> DocumentTokens | None:
        """Return the tokens of the next document. A stream of held-out documents returns None after one pass.

        Raises `OptionError` if a whole pass finds no document.
        """
        while self._block is None or self._index >= len(self._block):
            if self._block is not None:
                self._start, self._index = self._next, 0
                self._refused_before = self.refused
            if not self._read():
                if self._held:
                    return None
                if not self._found:
                    raise OptionError(
                        "data", f"the corpus {self._corpus.root} holds no document to train on{self._why()}"
                    )
                self.passes, self._start, self._index, self._found = (
                    self.passes + 1,
                    CorpusPosition(),
                    0,
                    False,
                )
                self._block = None
        if self._index not in self._encoded:
            end = min(self._index + _TOGETHER, len(self._block))
            found = self._encode(self._block[self._index : end])
            self._encoded = dict(zip(range(self._index, end), found, strict=True))
        self._index += 1
        return self._encoded[self._index - 1]

    def _read(self) -> bool:
        """Read and shuffle the block of documents at the present position. Return False if the pass has
        ended.
        """
        order = list(range(len(self._corpus.files)))
        random.Random(f"{self._seed}/{self.passes}").shuffle(order)
        block: list[Piece] = []
        size, read = 0, False
        self.refused, self._next = self._refused_before, self._start
        for found, after in self._corpus.pieces(order, self._start):
            read, self._next = True, after
            if isinstance(found, CorpusRejection):
                self.refused += 1
                self.problem = self.problem or found
                continue
            size += len(found.text) or sum(len(message.content) for message in found.messages)
            if found.held == self._held:
                block.append(found)
                self._found = True
            if size >= self._shuffle:
                break
        after = self._next
        random.Random(f"{self._seed}/{self.passes}/{after.file}/{after.offset}").shuffle(block)
        self._block, self._encoded = block, {}
        return read

    def _why(self) -> str:
        return (
            f"; the first problem is at {self.problem.where}: {self.problem.reason}" if self.problem else ""
        )


class PackedRows:
    """Packs a stream of documents into rows of tokens without gaps. A document that does not fit into a row
    continues in the next row.
    """

    def __init__(self, stream: DocumentStream) -> None:
        self.stream = stream
        self._before = stream.state()
        self._document: DocumentTokens | None = None
        self._used = 0
        self._carry: int | None = None

    def state(self) -> dict[str, Any]:
        """Return the position of the next row of tokens as JSON, to save it in a checkpoint."""
        return {"stream": self._before, "used": self._used, "carry": self._carry}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the row of tokens that would have come next when `state` was called."""
        self.stream.restore(state["stream"])
        self._before, self._document = state["stream"], None
        if state["used"]:
            self._document = self.stream.next()
        self._used, self._carry = state["used"], state["carry"]

    def row(self, length: int) -> DocumentTokens | None:
        """Return the next row of `length` + 1 tokens. Its first token repeats the last token of the row
        before.

        When a stream of held-out documents ends, its last row is shorter, and then None is returned.
        """
        ids, positions = np.zeros(length + 1, np.int64), np.zeros(length + 1, np.int64)
        counts = np.zeros(length + 1, np.bool_)
        filled = 0
        if self._carry is not None:
            ids[0], filled = self._carry, 1
        while filled < length + 1:
            if self._document is None or self._used == len(self._document.ids):
                self._before = self.stream.state()
                self._document, self._used = self.stream.next(), 0
                if self._document is None:
                    break
            found = self._document
            end = min(len(found.ids), self._used + length + 1 - filled)
            into = slice(filled, filled + end - self._used)
            ids[into], counts[into] = found.ids[self._used : end], found.counts[self._used : end]
            positions[into] = _from_here(found.positions[self._used : end], filled)
            filled, self._used = into.stop, end
        if self._document is not None and self._used == len(self._document.ids):
            self._before, self._document, self._used = self.stream.state(), None, 0
        self._carry = int(ids[filled - 1]) if filled else None
        if filled <= 1:
            return None
        return DocumentTokens(ids[:filled], counts[:filled], positions[:filled])


def _from_here(positions: NDArray[np.int64], filled: int) -> NDArray[np.int64]:
    """Return the positions of a row's tokens in their documents. For a document that began in an earlier row,
    count from the first token of this row instead.
    """
    if not len(positions) or positions[0] == 0:
        return positions
    begins = np.flatnonzero(positions == 0)
    until = int(begins[0]) if len(begins) else len(positions)
    return np.concatenate([positions[:until] - positions[0] + filled, positions[until:]])
