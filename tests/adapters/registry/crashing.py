"""Run as a program: kills a writer of a registry at its first step on disk, at its second, and so on.

`python -m tests.adapters.registry.crashing HOME FOLDER`: HOME holds v1.0 and v1.1 of `zero`, v1.0 active.
Prints, for each action, how many moments it was killed at. POSIX alone, since it forks.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from adapters.errors import UnknownAdapterError
from adapters.ledger import Ledger
from adapters.lora.families import LLAMA, Sizes
from adapters.lora.weights import ModelShape
from adapters.registry.registry import Base, Registry
from adapters.registry.traffic import format_shares
from adapters.registry.verify import verify_version

BASE = Base(
    name="tiny",
    digest="sha256:" + "0" * 64,
    shape=ModelShape(LLAMA, Sizes(hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=8, layers=2)),
)
WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod")
State = tuple[tuple[tuple[str, str], ...], str, str]


def with_ledger(home: Path) -> Registry:
    """The registry of `home`, and the ledger beside it."""
    return Registry(home, Ledger.open(home / "ledger"))


def state(registry: Registry) -> State:
    """What a server would see: versions with their digests, and how `zero` is answered. All must be whole."""
    listing = registry.listing()
    verdicts = [verify_version(entry, BASE) for entry in listing.entries if not listing.is_retired(entry)]
    assert [verdict.problem for verdict in verdicts] == [None] * len(verdicts)
    seen = tuple((v.entry.full_name, v.adapter.digest) for v in verdicts if v.adapter is not None)
    state = listing.pointers.state("zero")
    return seen, listing.find("zero").full_name, format_shares(state.split, state.shadow)


def killed_at(step: int, home: Path, action: Callable[[Registry], object]) -> bool:
    """Run `action` in a process that is killed before its `step`-th step on disk; whether it got there."""
    child = os.fork()
    if child == 0:
        steps = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps
            reads = event == "open" and (arguments[1] in ("r", "rb") or not _writes(arguments[2]))
            if event in WATCHED and not reads and str(arguments[0]).startswith(str(home / "registry")):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        action(with_ledger(home))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def main(home: Path, folder: Path) -> None:
    """Every action, killed at every step."""
    actions: dict[str, Callable[[Registry], object]] = {
        "add": lambda registry: registry.add(folder, base=BASE),
        "promote": lambda registry: registry.promote("zero@v1.1"),
        "canary": lambda registry: registry.canary("zero", {"v1.0": 90, "v1.1": 10}),
        "shadow": lambda registry: registry.shadow("zero@v1.1", 10),
        "delete": lambda registry: registry.retire("zero@v1.1", delete=True),
    }
    original = home.with_name("original")
    shutil.copytree(home, original)
    kill_each(home, original, actions)
    with_ledger(home).canary("zero", {"v1.0": 90, "v1.1": 10})
    divided = home.with_name("divided")
    shutil.copytree(home, divided)
    kill_each(home, divided, {"settle": lambda registry: registry.settle("zero", "killed")})


def kill_each(home: Path, original: Path, actions: Mapping[str, Callable[[Registry], object]]) -> None:
    """Every one of `actions`, killed at every step; `home` is as `original` before and after."""
    for name, action in actions.items():
        before = state(Registry(home))
        action(with_ledger(home))
        after = state(Registry(home))
        assert before != after
        step = 0
        while True:
            step += 1
            shutil.rmtree(home)
            shutil.copytree(original, home)
            came = killed_at(step, home, action)
            now = state(Registry(home))
            assert now in (before, after), f"{name} killed at step {step}"
            ledger = Ledger.open(home / "ledger")
            assert ledger.verify().state in ("absent", "intact", "repairable")
            if now == after != before and name == "add":
                assert ledger.knows(now[0][-1][1]), "nothing is there that the ledger does not know"
            if not came:
                break
            with suppress(UnknownAdapterError):  # of the second attempt to delete
                action(with_ledger(home))
            assert state(Registry(home)) == after
            assert not list((home / "registry").rglob("*.tmp")), "the next writer clears what was left"
        print(name, step - 1)
        shutil.rmtree(home)
        shutil.copytree(original, home)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
