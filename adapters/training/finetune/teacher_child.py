"""The process in which a local teacher model runs. It reads each batch of questions as a line of JSON, and
writes a line with the answers.

The process ends when its standard input is closed. Output that libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from adapters.training.finetune.answering import AnswerSampling, answer_chats
from adapters.training.finetune.base import Machine
from adapters.training.finetune.teacher import load_teacher
from adapters.training.loop.launch import ALONE
from adapters.training.loop.options import OptionError, TrainOptions


def main(folder: Path) -> None:
    """Load the teacher model in `folder`, and answer the batches of questions on standard input until it is
    closed.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        transformers_logging.disable_progress_bar()
        tokenizer, model = load_teacher(folder, TrainOptions(language="en"), Machine.here(ALONE))
        for line in sys.stdin:
            asked: dict[str, Any] = json.loads(line)
            questions: list[str] = asked["questions"]
            sampling = None
            if asked["temperature"] > 0:
                sampling = AnswerSampling(asked["temperature"], asked["top_p"], asked["seed"])
            said = answer_chats(
                model, tokenizer, questions, longest=asked["longest"], rows=len(questions), sampling=sampling
            )
            print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except OptionError as error:
        sys.exit(error.problem)
