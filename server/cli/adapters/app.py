"""Lists the verbs of `oneseek adapters` and of `oneseek ledger`."""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App

from server.cli.adapters import changes, shares, views
from server.cli.adapters.ledger import (
    check_signature,
    list_entries,
    repair,
    rotate,
    show_lineage,
    sign_adapter,
    verify_ledger,
)
from server.cli.adapters.listing import list_adapters
from server.cli.flags import HIDDEN, with_settings


def _group(group: App, verbs: dict[str, Callable[..., int]]) -> App:
    for verb, function in verbs.items():
        # Without version flags, since some of the verbs have a --version of their own.
        command = with_settings(function, show=False)
        group.command(command, name=verb, help_epilogue=HIDDEN, version_flags=[])
    return group


adapters = _group(
    App(name="adapters", version_flags=[]),
    {
        "list": list_adapters,
        "show": views.show_version,
        "add": changes.add,
        "import": changes.import_file,
        "verify": views.verify_versions,
        "promote": changes.promote,
        "rollback": changes.rollback,
        "retire": changes.retire,
        "repair": changes.repair,
        "canary": shares.canary,
        "shadow": shares.shadow,
        "settle": shares.settle,
        "diff": views.diff,
        "export": views.export_version,
    },
)
ledger = _group(
    App(name="ledger"),
    {
        "verify": verify_ledger,
        "show": show_lineage,
        "list": list_entries,
        "repair": repair,
        "rotate": rotate,
        "sign": sign_adapter,
        "check": check_signature,
    },
)
