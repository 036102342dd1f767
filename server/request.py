"""Defines the data types of the work that goes to an engine and of the output that comes back.

All types are frozen and independent of HTTP; `server.api` converts OpenAI's fields to them. Types of which an
object is made for each token are msgspec structs, which are several times faster to build than dataclasses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

FinishReason = Literal["stop", "length"]
"""`stop`: an end token, a stop token or a stop string; `length`: `max_tokens` or the end of the context."""

AdapterMix = tuple[tuple[str, float], ...]
"""Adapter digests with their blend weights, sorted by digest; empty for the base without adapters.

One adapter is `((digest, 1.0),)`; a blend of several adds their weighted LoRA terms.
"""


class Share(NamedTuple):
    """The API key and adapter under which a request is counted. The engine divides its queue and batch fairly
    between all such pairs.
    """

    tenant: str
    """Digest of the API key; empty if the server needs no key."""
    adapter: str
    """Digest of the adapter (for a blend, of the one with the largest weight); empty for the base."""
    background: bool = False
    """True for requests to a shadow version, whose answers no client sees. They do not count for any client,
    and are the first to be preempted.
    """


BASE_SHARE = Share("", "")
"""The `Share` under which requests without an API key and without an adapter are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters. Defaults are OpenAI's. Values are checked once, when a request is parsed."""

    max_tokens: int
    """Maximum number of tokens to generate. 0: only score the prompt."""
    temperature: float = 1.0
    """Sampling temperature; 0 always takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of likeliest tokens to sample from; 0 means all."""
    min_p: float = 0.0
    """Tokens less likely than `min_p` times the probability of the likeliest token are dropped."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens seen in the prompt or output (CTRL,
    2019).
    """
    presence_penalty: float = 0.0
    """Subtracted once from the logit of each token seen in the output."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time the token was seen in the output."""
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    """Maps token ids to values that are added to the tokens' logits, before all other changes."""
    seed: int | None = None
    """64-bit seed; the same seed gives the same text. None: a random seed for each request."""
    min_tokens: int = 0
    """Minimum number of tokens before an end token, stop token or stop string can end the text."""
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    """Strings that end the text. The text never contains them, not even partly."""
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    """Number of alternatives to report for each generated token; 0: only the chosen token; None: nothing."""
    prompt_logprobs: int | None = None
    """Number of alternatives to report for each prompt token after the first; None: nothing."""
    grammar: str = ""
    """Grammar that the text must match, in llguidance's Lark syntax (see `server.grammar`); empty:
    free text.
    """
    marks: Mapping[int, str] = field(default_factory=dict[int, str])
    """Maps token ids to the single characters that represent these tokens in the text, also for control
    tokens.

    If the model writes such a character itself, it becomes U+FFFD, so such a character in the text always
    stands for the token.
    """

    @property
    def greedy(self) -> bool:
        """True if the likeliest token is always chosen."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request to generate one text. An OpenAI request with `n` choices makes `n` of these."""

    request_id: str
    """Id of the request, unique among running requests; chosen by the server, never by a client."""
    prompt: tuple[int, ...]
    """Token ids of the prompt, at least one."""
    sampling: Sampling
    adapter_mix: AdapterMix = ()
    cache_salt: str = ""
    """Salt of the prefix cache, such as a tenant's. Requests share cached prefixes only if they have the same
    salt and adapters.
    """
    continues: bool = False
    """True if the text continues the prompt and keeps a leading space; False if it is a new answer."""
    share: str = ""
    """Digest of the adapter under which the request is counted in the fair division of the queue; empty for
    the base.
    """
    tenant: str = ""
    """Digest of the API key under which the request is counted in the fair division of the queue."""
    background: bool = False
    """True for requests to a shadow version; see `Share.background`."""
    reservation: str = ""
    """Name of the reservation that holds the request's place in the queue. Empty if the engine has
    to reserve one itself.
    """
    whole: bool = False
    """True if the client gets nothing before the answer is complete, so that the answer may restart
    (`Delta.anew`).
    """

    @property
    def fair_share(self) -> Share:
        """The API key and adapter under which the request is counted, so that queue and batch are divided
        fairly.
        """
        return Share(self.tenant, self.share, self.background)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """A request to embed one text."""

    request_id: str
    """Id of the request, chosen by the server and unique among running requests."""
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    adapter_mix: AdapterMix = ()
    dimensions: int | None = None
    """Length of the vector, for bases with Matryoshka training; None: the base's own length."""
    cache_salt: str = ""
    share: Share = BASE_SHARE
    """The API key and adapter under which the request is counted, so that the queue is divided fairly."""


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A token with its log probability: natural log-softmax of the model's unmodified logits."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest alternatives as (token id, logprob), best first."""
    rank: int = 1
    """Rank by probability among all tokens; 1 is the likeliest, and ties share a rank."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one request so far."""

    prompt_tokens: int
    cached_tokens: int
    """Number of prompt tokens found in the prefix cache."""
    completion_tokens: int


class Timing(msgspec.Struct, frozen=True, gc=False):
    """Times at which a request reached each stage, in seconds of `time.perf_counter()`. Part of the last
    delta.
    """

    arrived: float
    scheduled: float
    """Time of the first engine step that worked on the request."""
    first_token: float
    finished: float


class Delta(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer: what one engine step added to one request.

    The texts of all deltas join to the whole answer. `text` is empty while an incomplete character or a
    possible stop string is held back. The last delta has a `finish_reason`, the `usage` and the `timing`.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    """Log probability of each token in `token_ids`, if the request asks for it."""
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """Log probability of each prompt token after the first, if requested. Only the first delta has this
    field.
    """
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or stop token id that ended the text, if one did."""
    usage: Usage | None = None
    timing: Timing | None = None
    anew: bool = False
    """True if the answer restarts with this delta and earlier deltas are void. Happens only if the request's
    `whole` is true, since the client has then not received anything yet.
    """
    cached_tokens: int | None = None
    """Number of prompt tokens that came from the prefix cache. Only the first delta has this field; the last
    delta has the number in `usage`.
    """


Deltas = AsyncGenerator[list[tuple[int, Delta]]]
"""Yields lists of deltas (pieces of text) in order of arrival, each with the index of its generation."""
