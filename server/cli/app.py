"""Lists the verbs (sub-commands) of the `oneseek` command line."""

from __future__ import annotations

from cyclopts import App

from server.cli.adapters.backup import backup, restore
from server.cli.adapters.merge import merge
from server.cli.flags import EPILOGUE, HIDDEN, with_any_settings, with_settings
from server.cli.serving.config import config
from server.cli.serving.devices import devices
from server.cli.serving.doctor import doctor
from server.cli.serving.install_provider import install_provider
from server.cli.serving.models import models
from server.cli.serving.route import route
from server.cli.serving.serve import serve
from server.cli.training.data import check_data, show_stats
from server.cli.training.evaluate import evaluate
from server.config.version import version_line

ADAPTERS = "List, add and change adapters and their versions."
LEDGER = "Read and check the signed record of what made or changed each adapter."

DISTILL = (
    "Have a teacher write a data set, filter it, and train a student adapter on the rest.\n\n"
    "The adapter becomes a version in the registry, ready to serve without the teacher, and an entry in the "
    "ledger."
)

BENCH = "Benchmark a server: throughput, latency, the cost of adapters, or two servers against each other."


def build_app() -> App:
    """Return the whole command line as an app, to be called with the command's arguments."""
    app = App(
        name="oneseek",
        help="An LLM server with LoRA adapters: one frozen base, an adapter per request, mixed in one batch.",
        version=version_line,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    app.command(with_settings(serve, show=True), name="serve", help_epilogue=EPILOGUE)
    app.command(with_settings(route, show=False), name="route", help_epilogue=HIDDEN)
    # By name, so that a start waits for no verb of theirs.
    app.command("server.cli.adapters.app:adapters", name="adapters", help=ADAPTERS)
    app.command("server.cli.adapters.app:ledger", name="ledger", help=LEDGER)
    app.command(with_settings(backup, show=False), name="backup", help_epilogue=HIDDEN)
    app.command(with_settings(restore, show=False), name="restore", help_epilogue=HIDDEN)
    app.command(with_settings(models, show=False), name="models", help_epilogue=HIDDEN)
    own_devices = App(name="devices", help_epilogue=HIDDEN, version_flags=[])
    own_devices.default(with_settings(devices, show=False))
    own_devices.command(install_provider, name="install", help_epilogue="")
    app.command(own_devices)
    app.command(with_any_settings(doctor), name="doctor", help_epilogue=HIDDEN)
    app.command(with_settings(config, show=True), name="config", help_epilogue=EPILOGUE)
    app.command(with_settings(merge, show=False), name="merge", help_epilogue=HIDDEN)
    data = App(name="data", help="Check and inspect training data.")
    app.command(data)
    data.command(check_data, name="check")
    data.command(with_settings(show_stats, show=False), name="stats", help_epilogue=HIDDEN)
    app.command(with_settings(evaluate, show=False), name="eval", help_epilogue=HIDDEN)
    # By name: what they take is read from classes of options, which a start need not wait for.
    app.command("server.cli.training.train:app", name="train", help="Train adapters and bases.")
    app.command("server.cli.training.distill:app", name="distill", help=DISTILL)
    # Without flags of its own: the verbs behind it print their help.
    app.command("server.cli.bench:bench", name="bench", help=BENCH, help_flags=[], version_flags=[])
    app.command(
        "server.cli.completion:completion", name="completion", help="Print the completion script of a shell."
    )
    return app
