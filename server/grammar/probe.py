"""The child process in which a grammar is tried first: it may hang, exhaust its memory or crash there.

Compiling is native code that cannot be interrupted, and some grammars of a few bytes take it minutes,
gigabytes, or more stack than there is. What passes here, under narrower limits, passes in the server too.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from server.grammar.llg import compile_grammar, complaint, open_tokenizer
from server.grammar.text import GrammarRefusedError
from server.text.tokenizer import Tokenizer

MEMORY = 128 << 20
"""Bytes that a trial may take."""
STACK = 896 << 10
"""Bytes of stack that it may take; a thread of the server has at least as many."""
MASK_SECONDS = 0.05
"""Processor time that the choice of one token may take: everyone's next token waits for it."""
STEPS = 64
"""Tokens that a trial follows the grammar for, at random, once it compiles."""


def answer_grammars(pipe: Connection[object, object], definition: str, eos_ids: frozenset[int]) -> None:
    """Answer each grammar that comes through `pipe` with a complaint, or with the empty string.

    Says once, with an empty string too, that it is ready. Returns when the other end closes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends this process too
    tokenizer = open_tokenizer(Tokenizer(definition, {}, eos_ids))
    _bound_memory()
    _hush()
    threading.stack_size(STACK)
    pipe.send("")
    try:
        while True:
            pipe.send(_in_small_stack(tokenizer, str(pipe.recv())))
    except (EOFError, OSError):  # the server has gone
        return


def _in_small_stack(tokenizer: LLTokenizer, text: str) -> str:
    verdicts: list[str] = []
    thread = threading.Thread(target=lambda: verdicts.append(attempt(tokenizer, text)))
    thread.start()
    thread.join()
    return verdicts[0] if verdicts else "the grammar cannot be compiled"


def attempt(tokenizer: LLTokenizer, text: str) -> str:
    """Compile `text` and follow it for some tokens; why that fails, or the empty string."""
    try:
        matcher = compile_grammar(tokenizer, text)
    except GrammarRefusedError as error:
        return str(error)
    return _walk(matcher, tokenizer.vocab_size, frozenset(tokenizer.eos_tokens))


def _walk(matcher: LLMatcher, vocabulary: int, ends: frozenset[int]) -> str:
    """Take tokens at random until the text is complete; the trouble met, or the empty string."""
    choose = random.Random(0)
    for step in range(STEPS):
        began = time.thread_time()
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        if matcher.is_error():
            reason = complaint(matcher.get_error())
            return "no text at all fits it" if not step and "NoExtension" in reason else reason
        if spent > MASK_SECONDS:
            return f"a single token takes {spent:.2g} s; make it simpler"
        bits = np.unpackbits(mask, bitorder="little", count=vocabulary)
        allowed = [token for token in np.flatnonzero(bits).tolist() if token not in ends]
        if not allowed or not matcher.consume_token(choose.choice(allowed)):
            return complaint(matcher.get_error()) if allowed else ""
        if matcher.is_stopped():
            return complaint(matcher.get_error())
    return ""


def _bound_memory() -> None:
    """Let the process take `MEMORY` bytes more than it has; where the system cannot, time alone bounds it."""
    if sys.platform != "linux":
        return
    import resource

    held = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if held is not None:
        limit = (int(held[1]) << 10) + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _hush() -> None:
    """Keep what native code says as it dies out of the server's log; the verdict says it."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
