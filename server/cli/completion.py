"""`oneseek completion`."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> int:
    """Print what completes the command line in a shell, such as: source <(oneseek completion bash).

    Parameters
    ----------
    shell
        The shell that is to read it.
    """
    from server.cli.app import build_app

    print(build_app().generate_completion(prog_name="oneseek", shell=shell))
    return 0
