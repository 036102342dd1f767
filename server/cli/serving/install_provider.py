"""Implements `oneseek devices install`, which downloads an execution provider of Windows ML."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

ProviderName = Annotated[
    str | None,
    Parameter(help="Execution provider to install. Default: all that are certified for this machine."),
]


def install_provider(name: ProviderName = None, /) -> int:
    """Let Windows download execution providers for Windows ML, which may take minutes.

    `oneseek devices` lists the providers on offer. `oneseek serve` never downloads one; it uses those that
    this verb has installed.
    """
    from server.engines.embedded.runners.windowsml.catalogue import (
        install,
        list_offers,
        missing,
        open_catalogue,
    )

    catalogue = open_catalogue()
    wanted = [name] if name is not None else [offer.name for offer in missing(list_offers(catalogue))]
    for one in wanted:
        print(f"installing {one}", flush=True)
        offer = install(catalogue, one)
        print(f"{offer.name} {offer.version} is installed; start the server with --device windowsml")
    if not wanted:
        print("nothing to install: every execution provider certified for this machine is installed")
    return 0
