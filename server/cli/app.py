"""The command line's verbs in one visible list."""

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
from server.cli.adapters.merge import merge
from server.cli.flags import EPILOGUE, HIDDEN, with_settings
from server.cli.serving.config import config
from server.cli.serving.devices import devices
from server.cli.serving.models import models
from server.cli.serving.route import route
from server.cli.serving.serve import serve
from server.cli.training.data import check_data, show_stats
from server.cli.training.evaluate import evaluate
from server.config.version import version_line

DISTILL = (
    "Have a teacher write a data set, drop what is no good, and train a student's adapter on the rest.\n\n"
    "What is made becomes a version in the registry, ready to serve without the teacher, and an entry in the "
    "ledger."
)


def build_app() -> App:
    """The whole command line, as an app to call with its arguments."""
    app = App(
        name="oneseek",
        help="A multi-adapter model server: one frozen base, an adapter for each request, all in one batch.",
        version=version_line,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    adapters = App(name="adapters", help="The adapters at hand, and their versions.", version_flags=[])
    app.command(with_settings(serve, show=True), name="serve", help_epilogue=EPILOGUE)
    app.command(with_settings(route, show=False), name="route", help_epilogue=HIDDEN)
    app.command(adapters)
    adapters.command(with_settings(list_adapters, show=False), name="list", help_epilogue=HIDDEN)
    verbs: dict[str, Callable[..., int]] = {
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
    }
    for name, verb in verbs.items():
        # Without version flags, since --version is theirs to take.
        command = with_settings(verb, show=False)
        adapters.command(command, name=name, help_epilogue=HIDDEN, version_flags=[])
    ledger = App(name="ledger", help="The signed record of what made or changed each adapter.")
    app.command(ledger)
    ledger.command(with_settings(verify_ledger, show=False), name="verify", help_epilogue=HIDDEN)
    ledger.command(with_settings(show_lineage, show=False), name="show", help_epilogue=HIDDEN)
    ledger.command(with_settings(list_entries, show=False), name="list", help_epilogue=HIDDEN)
    ledger.command(with_settings(repair, show=False), name="repair", help_epilogue=HIDDEN)
    ledger.command(with_settings(rotate, show=False), name="rotate", help_epilogue=HIDDEN)
    ledger.command(with_settings(sign_adapter, show=False), name="sign", help_epilogue=HIDDEN)
    ledger.command(with_settings(check_signature, show=False), name="check", help_epilogue=HIDDEN)
    app.command(with_settings(models, show=False), name="models", help_epilogue=HIDDEN)
    app.command(with_settings(devices, show=False), name="devices", help_epilogue=HIDDEN)
    app.command(with_settings(config, show=True), name="config", help_epilogue=EPILOGUE)
    app.command(with_settings(merge, show=False), name="merge", help_epilogue=HIDDEN)
    data = App(name="data", help="What adapters are trained on.")
    app.command(data)
    data.command(check_data, name="check")
    data.command(with_settings(show_stats, show=False), name="stats", help_epilogue=HIDDEN)
    app.command(with_settings(evaluate, show=False), name="eval", help_epilogue=HIDDEN)
    # By name: what they take is read from classes of options, which a start need not wait for.
    app.command("server.cli.training.train:app", name="train", help="Make adapters, and bases.")
    app.command("server.cli.training.distill:app", name="distill", help=DISTILL)
    app.command("server.cli.completion:completion", name="completion", help="Print a shell's completion.")
    return app
