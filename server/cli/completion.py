"""`oneseek completion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cyclopts import App


def completion_of(app: App) -> Callable[..., int]:
    """The verb that prints the completion of `app`."""

    def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> int:
        """Print what completes the command line in a shell, such as: source <(oneseek completion bash).

        Parameters
        ----------
        shell
            The shell that is to read it.
        """
        print(app.generate_completion(prog_name="oneseek", shell=shell))
        return 0

    return completion
