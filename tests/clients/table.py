"""Write the table of docs/clients.md: which version of each client passes, and what does not work.

    python -m tests.clients.table     after `make test-clients` passed, which runs the versions of the locks

`make clients-table` does both.
"""

from __future__ import annotations

from pathlib import Path

from tests.clients.clients import CLIENTS, Client, versions

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- make clients-table -->\n", "<!-- end -->\n"


def table() -> str:
    """The lines between the marks."""
    head = ["| client | tested version | what was tested and works | limitations |", "|---|---|---|---|"]
    return "\n".join([*head, *(row(client) for client in CLIENTS)]) + "\n"


def row(client: Client) -> str:
    name = f"{client.title} (`{client.package}`)" if client.package else client.title
    return f"| {name} | {', '.join(versions(client))} | {client.shows} | {client.limits} |"


def written(document: str) -> str:
    """The document with the table of now."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
