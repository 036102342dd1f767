"""A registry that takes adapters by URL, and says what is left of one that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.ledger import Ledger
from adapters.registry.intake import Base
from adapters.registry.registry import AddResult, Registry
from adapters.remote.errors import FetchError
from adapters.remote.fetch import Fetch, add_from_url
from adapters.remote.url import AdapterURL

SECRET = "hunter2hunter2"


class Door:
    """A registry that takes adapters by URL."""

    def __init__(self, home: Path, base: Base) -> None:
        self.home, self.base = home, base
        self.ledger = Ledger.open(home / "ledger")
        self.registry = Registry(home, self.ledger)

    def add(self, url: str, **given: Any) -> AddResult:
        names = {name: given.pop(name) for name in ("alias", "version", "language") if name in given}
        options: dict[str, Any] = {"follow_redirects": True, **given}
        fetch = Fetch(url=AdapterURL.parse(url), **options)
        return add_from_url(self.registry, fetch, self.home, base=self.base, **names)

    def refused(self, url: str, **given: Any) -> FetchError:
        """Why `url` is refused; nothing is left of it."""
        before = self.files()
        with pytest.raises(FetchError) as refused:
            self.add(url, **given)
        assert self.files() == before
        assert "\n" not in str(refused.value)
        assert SECRET not in str(refused.value)
        return refused.value

    def files(self) -> dict[str, int]:
        found = (path for path in self.home.rglob("*") if path.name not in (".lock", "format"))
        return {str(path): path.stat().st_size for path in found}
