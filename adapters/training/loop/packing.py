"""Pack conversations into batch rows of token ids with little padding. They have Mistral's chat format, and
only answer tokens count for the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from adapters.training.loop.feed import TrainingBatch

BEGIN, END = "<s>", "</s>"
INSTRUCTION, END_INSTRUCTION = "[INST]", "[/INST]"

Turn = tuple[str, str]
"""One exchange of a conversation: a question and its answer."""


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation as token ids. `answer[i]` is True if token `i` belongs to an answer, including the
    end-of-text token after it.
    """

    ids: tuple[int, ...]
    answer: tuple[bool, ...]


class Encoder:
    """Encodes conversations with `tokenizer` in Mistral's chat format. The token ids of answers are
    cached.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._answers: dict[str, list[int]] = {}
        self.begin, self.end = self._special(BEGIN), self._special(END)
        self._open, self._close = self._special(INSTRUCTION), self._special(END_INSTRUCTION)

    def _special(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ValueError(
                f"the tokenizer lacks the token {name!r}; train one with adapters.training.pretrain.tokenizer"
            )
        return token

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text.strip(), add_special_tokens=False).ids

    def document(self, turns: Sequence[Turn], system: str = "") -> Document:
        """Encode a conversation as one document. The text of `system` is put before the first question."""
        ids, answer = [self.begin], [False]
        for n, (question, said) in enumerate(turns):
            asked = f"{system}\n\n{question}" if system and n == 0 else question
            prompt = [self._open, *self._ids(asked), self._close]
            if said not in self._answers:
                self._answers[said] = [*self._ids(said), self.end]
            ids += prompt + self._answers[said]
            answer += [False] * len(prompt) + [True] * len(self._answers[said])
        return Document(tuple(ids), tuple(answer))


def pack(documents: Iterable[Document], rows: int, length: int, fill: int, window: int = 48) -> TrainingBatch:
    """Pack documents into a batch of `rows` rows with `length` tokens each, and return it.

    At most `window` documents wait to be packed. A row takes the first waiting document that fits, or the
    longest one when less than a third of the row is free. Documents longer than a row are left out. Free
    space is filled with the token `fill`, which does not count for the loss.
    """
    source = iter(documents)
    waiting: list[Document] = []
    ids = torch.full((rows, length), fill, dtype=torch.long)
    counts = torch.zeros((rows, length), dtype=torch.bool)
    for row in range(rows):
        used = 0
        while True:
            while len(waiting) < window and (document := next(source, None)) is not None:
                if len(document.ids) <= length:
                    waiting.append(document)
            fitting = [document for document in waiting if len(document.ids) <= length - used]
            if not fitting:
                break
            chosen = (
                fitting[0] if length - used > length // 3 else max(fitting, key=lambda found: len(found.ids))
            )
            waiting.remove(chosen)
            end = used + len(chosen.ids)
            ids[row, used:end] = torch.tensor(chosen.ids)
            counts[row, used:end] = torch.tensor(chosen.answer)
            used = end
    return TrainingBatch(ids, counts)
