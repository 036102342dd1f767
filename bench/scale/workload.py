"""The requests to a simulated fleet: drawn from distributions, or read from a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bench.load.arrivals import arrival_times
from bench.scenarios.plan import zipf_shares
from bench.text.brought import TraceArrival
from bench.text.prompts import LengthSpread

PROMPT = LengthSpread(median=60, sigma=0.6, least=16, most=600)
"""Default distribution of the number of prompt tokens."""
ANSWER = LengthSpread(median=48, sigma=0.5, least=8, most=192)


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """A request to a simulated fleet."""

    at: float
    """Arrival time in seconds after the start of the simulation."""
    prompt_tokens: int
    answer_tokens: int
    adapter: int = 0
    session: int = 0
    """Number of the conversation that the request belongs to. 0: it is not part of a conversation."""
    history_tokens: int = 0
    """Number of prompt tokens that repeat earlier turns of the conversation. The replica that served these
    may have them in its prefix cache.
    """


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """The distributions from which requests to a simulated fleet are drawn."""

    rate: float = 1.0
    """Number of requests that arrive per second."""
    seconds: float = 60.0
    burstiness: float = 1.0
    prompt: LengthSpread = PROMPT
    answer: LengthSpread = ANSWER
    adapters: int = 2
    zipf: float = 1.0
    turns: int = 1
    """Number of turns in a conversation. The prompt of each turn begins with all earlier turns."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rate > 0 or not self.seconds > 0:
            raise ValueError(
                f"the simulated load has a rate of {self.rate} for {self.seconds} seconds; both must be "
                "above 0"
            )
        for name in ("adapters", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"the number of {name}, {getattr(self, name)}, is too small; use at least 1")


def draw(options: WorkloadOptions, trace: Sequence[TraceArrival] = ()) -> list[FleetRequest]:
    """Return the requests in order of arrival, the same for the same seed. If a trace is given, arrival times
    and lengths come from it.
    """
    random = Random(f"fleet/{options.seed}")
    shares = zipf_shares(options.adapters, options.zipf)
    times = [arrival.at for arrival in trace] or arrival_times(
        options.rate, options.seconds, Random(f"fleet arrivals/{options.seed}"), options.burstiness
    )
    turns = _Turns(options, random, shares, max(1, len(times) // (4 * options.turns)))
    found: list[FleetRequest] = []
    for number, at in enumerate(times):
        if trace:
            sizes = (trace[number].prompt_tokens, trace[number].answer_tokens)
        else:
            sizes = (options.prompt.draw(random), options.answer.draw(random))
        found.append(turns.next(at, *sizes))
    return found


class _Turns:
    """Assigns requests to conversations. A conversation ends after its number of turns."""

    def __init__(self, options: WorkloadOptions, random: Random, shares: Sequence[float], open_at_once: int):
        self._turns, self._random, self._shares = options.turns, random, shares
        self._open: list[tuple[int, int, int, int]] = []
        """Session, adapter, turns so far, tokens so far."""
        self._at_once, self._sessions = open_at_once, 0

    def next(self, at: float, prompt: int, answer: int) -> FleetRequest:
        if self._turns == 1:
            return FleetRequest(at, prompt, answer, self._adapter())
        if len(self._open) < self._at_once:
            self._sessions += 1
            self._open.append((self._sessions, self._adapter(), 0, 0))
        place = self._random.randrange(len(self._open))
        session, adapter, turn, history = self._open[place]
        if turn + 1 == self._turns:
            self._open.pop(place)
        else:
            self._open[place] = (session, adapter, turn + 1, history + prompt + answer)
        return FleetRequest(at, history + prompt, answer, adapter, session, history)

    def _adapter(self) -> int:
        return self._random.choices(range(len(self._shares)), self._shares)[0]
