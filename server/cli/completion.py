"""Implements `oneseek completion`, which prints a shell's completion script."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> int:
    """Print a shell's completion script. Use it like this: source <(oneseek completion bash).

    Parameters
    ----------
    shell
        The shell to complete in.
    """
    from server.cli.app import build_app

    print(build_app().generate_completion(prog_name="oneseek", shell=shell))
    return 0
