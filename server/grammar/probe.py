"""Runs in a child process of the server, and tests grammars there, since a grammar may hang, exhaust memory
or crash.

Compiling is native code that cannot be interrupted. For some grammars of a few bytes, it takes minutes,
gigabytes, or more stack than there is. The limits here are narrower than the server's, so a grammar that
passes this test works in the server too.
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
"""Maximum memory in bytes that testing a grammar may take."""
STACK = 896 << 10
"""Stack size in bytes for testing a grammar; the server's threads have at least as much."""
MASK_SECONDS = 0.05
"""Maximum CPU time in seconds to compute which tokens may come next. All requests in a batch wait for
this.
"""
STEPS = 64
"""Number of random tokens that a test generates with a grammar after compiling it."""


def answer_grammars(pipe: Connection[object, object], definition: str, eos_ids: frozenset[int]) -> None:
    """Reply to each grammar that arrives at `pipe` with an error message, or with an empty string if the
    grammar passes the test.

    Sends one empty string when the process is ready. Returns when the server closes the other end of `pipe`.
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
    return (
        verdicts[0]
        if verdicts
        else "the server failed to compile the grammar; simplify the grammar or schema"
    )


def attempt(tokenizer: LLTokenizer, text: str) -> str:
    """Compile the grammar `text`, and generate some random tokens with it. Returns an error message; empty if
    the grammar works.
    """
    try:
        matcher = compile_grammar(tokenizer, text)
    except GrammarRefusedError as error:
        return str(error)
    return _walk(matcher, tokenizer.vocab_size, frozenset(tokenizer.eos_tokens))


def _walk(matcher: LLMatcher, vocabulary: int, ends: frozenset[int]) -> str:
    """Generate random tokens that the grammar allows, until the text is complete. Returns an error message;
    empty if the grammar works.
    """
    choose = random.Random(0)
    for step in range(STEPS):
        began = time.thread_time()
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        if matcher.is_error():
            reason = complaint(matcher.get_error())
            return (
                "no text can match the grammar; correct the grammar or schema"
                if not step and "NoExtension" in reason
                else reason
            )
        if spent > MASK_SECONDS:
            return f"a single token of the grammar takes {spent:.2g} s to compute; simplify the grammar"
        bits = np.unpackbits(mask, bitorder="little", count=vocabulary)
        allowed = [token for token in np.flatnonzero(bits).tolist() if token not in ends]
        if not allowed or not matcher.consume_token(choose.choice(allowed)):
            return complaint(matcher.get_error()) if allowed else ""
        if matcher.is_stopped():
            return complaint(matcher.get_error())
    return ""


def _bound_memory() -> None:
    """Limit this process to `MEMORY` more bytes than it has now. Works on Linux only."""
    if sys.platform != "linux":
        return
    import resource

    held = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if held is not None:
        limit = (int(held[1]) << 10) + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _hush() -> None:
    """Keep the crash output of native code out of the server's log; the server reports the crash to the
    client.
    """
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
