"""The child process that tests a grammar first, where it may hang, exhaust memory or crash.

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
"""Memory limit of a test in bytes."""
STACK = 896 << 10
"""Stack limit of a test in bytes; the server's threads have at least as much."""
MASK_SECONDS = 0.05
"""CPU time limit in seconds for a single token, because all requests in a batch wait for it."""
STEPS = 64
"""Number of random tokens to follow in a test, after compiling."""


def answer_grammars(pipe: Connection[object, object], definition: str, eos_ids: frozenset[int]) -> None:
    """Reply to each grammar from `pipe` with an error message, or the empty string if it passes.

    Sends an empty string once when it is ready. Returns when the other end closes.
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
    """Compile `text` and follow it for some tokens. Returns an error message, or the empty string."""
    try:
        matcher = compile_grammar(tokenizer, text)
    except GrammarRefusedError as error:
        return str(error)
    return _walk(matcher, tokenizer.vocab_size, frozenset(tokenizer.eos_tokens))


def _walk(matcher: LLMatcher, vocabulary: int, ends: frozenset[int]) -> str:
    """Take random tokens until the text is complete. Returns an error message, or the empty string."""
    choose = random.Random(0)
    for step in range(STEPS):
        began = time.thread_time()
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        if matcher.is_error():
            reason = complaint(matcher.get_error())
            return "no text can match it" if not step and "NoExtension" in reason else reason
        if spent > MASK_SECONDS:
            return f"a single token takes {spent:.2g} s; simplify it"
        bits = np.unpackbits(mask, bitorder="little", count=vocabulary)
        allowed = [token for token in np.flatnonzero(bits).tolist() if token not in ends]
        if not allowed or not matcher.consume_token(choose.choice(allowed)):
            return complaint(matcher.get_error()) if allowed else ""
        if matcher.is_stopped():
            return complaint(matcher.get_error())
    return ""


def _bound_memory() -> None:
    """Limit the process to `MEMORY` more bytes, if the system supports that."""
    if sys.platform != "linux":
        return
    import resource

    held = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if held is not None:
        limit = (int(held[1]) << 10) + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _hush() -> None:
    """Keep native code's crash output out of the server's log; the result reports the crash."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
