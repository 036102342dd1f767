"""The one shape in which work reaches an engine and comes back from it.

Everything here is frozen and knows nothing of HTTP: an OpenAI field ends at `server.api`. What is made for
every token is a msgspec struct, built several times faster than a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

FinishReason = Literal["stop", "length"]
"""`stop`: an end token, a stop token or a stop string; `length`: `max_tokens` or the end of the context."""

AdapterMix = tuple[tuple[str, float], ...]
"""Adapter digests with their blend weights, sorted by digest; empty means the base alone.

One adapter is `((digest, 1.0),)`; a blend of several adds their weighted LoRA terms.
"""


class Share(NamedTuple):
    """Whose part of the queue and of the batch a request counts against."""

    tenant: str
    """Digest of the API key; empty if none is needed."""
    adapter: str
    """The adapter's digest, of a blend that of its heaviest; the empty string for the base."""
    background: bool = False
    """True for shadows: they have no part, count for nobody, and make way first."""


BASE_SHARE = Share("", "")
"""The base's, if no key is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The defaults are OpenAI's; values are checked on the wire, once."""

    max_tokens: int
    """Most tokens to generate; 0 asks for the prompt's own logprobs alone."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means all."""
    min_p: float = 0.0
    """Drop tokens less likely than `min_p` × the likeliest."""
    repetition_penalty: float = 1.0
    """Divides (positive) or multiplies (negative) logits of tokens seen in prompt or output (CTRL, 2019)."""
    presence_penalty: float = 0.0
    """Subtracted once from tokens seen in the output."""
    frequency_penalty: float = 0.0
    """Subtracted for each time a token was seen in the output."""
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    """Token id → added to its logit before everything else."""
    seed: int | None = None
    """64-bit; the same seed gives the same text. None draws one for the request."""
    min_tokens: int = 0
    """No end token, stop token or stop string ends the text before this many tokens."""
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    """Strings that end the text; never emitted, not even in part."""
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    """Number of alternatives reported for each generated token; 0 reports the chosen one alone."""
    prompt_logprobs: int | None = None
    """The same for each prompt token after the first."""
    grammar: str = ""
    """What every token must keep to, in llguidance's Lark syntax (see `server.grammar`); empty: free."""
    marks: Mapping[int, str] = field(default_factory=dict[int, str])
    """Token id → the one character that stands for it in the text, control tokens included.

    Where the model's own text holds such a character, it becomes U+FFFD, so that a mark is always the token.
    """

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One text to generate. `n` choices of an OpenAI request are `n` of these."""

    request_id: str
    """Unique among live requests; chosen by the server, never by a client."""
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    sampling: Sampling
    adapter_mix: AdapterMix = ()
    cache_salt: str = ""
    """Prefix reuse happens only between requests of the same salt (a tenant's) and the same adapter mix."""
    continues: bool = False
    """Whether the text goes on from the prompt's, leading space kept, or begins anew as an answer does."""
    share: str = ""
    """The adapter whose share the work counts against: its digest, or the empty string for the base."""
    tenant: str = ""
    """Digest of the API key whose share it is; with `share`, the whole of `fair_share`."""
    background: bool = False
    """See `Share.background`."""
    reservation: str = ""
    """Name of the reservation that holds its place; empty if it takes a place when it reaches the engine."""

    @property
    def fair_share(self) -> Share:
        """Whose part of the queue and of the batch it counts against."""
        return Share(self.tenant, self.share, self.background)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """One text to turn into a vector."""

    request_id: str
    """Unique among live requests; chosen by the server, never by a client."""
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    adapter_mix: AdapterMix = ()
    dimensions: int | None = None
    """Length of the vector, for bases trained to be cut (Matryoshka); None is the base's own."""
    cache_salt: str = ""
    share: Share = BASE_SHARE
    """Whose turn it takes."""


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """One token with its log probability: log-softmax (natural log) of the model's own logits."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest alternatives as (token id, logprob), best first."""
    rank: int = 1
    """Its place among all tokens by probability; 1 is the likeliest, and tokens as likely share theirs."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one request so far."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values came from an earlier request of the same adapter mix."""
    completion_tokens: int


class Timing(msgspec.Struct, frozen=True, gc=False):
    """When a request passed each point, in seconds of `time.perf_counter()`. Carried by its last delta."""

    arrived: float
    scheduled: float
    """First step that worked on it."""
    first_token: float
    finished: float


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What one step added to one request.

    `text` may be empty while bytes of a character, or of a possible stop string, are held back; joined over
    a request it is the whole answer. The last delta has a `finish_reason`, the `usage` and the `timing`.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids` where the request asked for them."""
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """Once, on the first delta, where asked for: one for each prompt token after the first."""
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or stop token id that ended the text, if one did."""
    usage: Usage | None = None
    timing: Timing | None = None


Deltas = AsyncGenerator[list[tuple[int, Delta]]]
"""What has come, in order, each delta with the index of its generation."""
