"""Error replies to changes name no folder of the host, and say that a retry would not help."""

from __future__ import annotations

from pathlib import Path

from adapters.errors import AdapterError, LedgerError
from server.live.loading import describe_refusal, unusable
from server.live.registry_changes import conflict


def test_what_asking_again_cannot_cure_is_not_asked_again() -> None:
    """openai-python would try a 409 and a 5xx twice more."""
    damaged = LedgerError(Path("/home/x/ledger/head.json"), "was removed", "Restore it.")
    for error, status in ((conflict("zero is active"), 409), (unusable(damaged), 503)):
        assert (error.reply.status, error.reply.headers["x-should-retry"]) == (status, "false")
        assert "/home" not in error.reply.message


def test_a_refusal_names_no_folder_of_the_host() -> None:
    bad = AdapterError(Path("/home/x/adapters/a/adapter_config.json"), "is no JSON", "Save it again.")
    reply = describe_refusal(bad, "path").reply
    assert reply.message.startswith("adapter_config.json")
    assert "/home" not in reply.message
