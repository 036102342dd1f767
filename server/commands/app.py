"""The command line's verbs in one visible list."""

from __future__ import annotations

from cyclopts import App

from server.commands.adapters import list_adapters
from server.commands.config import config
from server.commands.flags import EPILOGUE, HIDDEN, with_settings
from server.commands.models import models
from server.commands.route import route
from server.commands.serve import serve
from server.version import oneseek_version


def build() -> App:
    """The whole command line, as an app to call with its arguments."""
    app = App(
        name="oneseek",
        help="A multi-adapter model server: one frozen base, an adapter for each request, all in one batch.",
        version=oneseek_version,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    adapters = App(name="adapters", help="The adapters at hand.")
    app.command(with_settings(serve, show=True), name="serve", help_epilogue=EPILOGUE)
    app.command(with_settings(route, show=False), name="route", help_epilogue=HIDDEN)
    app.command(adapters)
    adapters.command(with_settings(list_adapters, show=False), name="list", help_epilogue=HIDDEN)
    app.command(with_settings(models, show=False), name="models", help_epilogue=HIDDEN)
    app.command(with_settings(config, show=True), name="config", help_epilogue=EPILOGUE)
    return app
