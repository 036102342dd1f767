"""Send small JSON requests to the server under test, beside the load."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30.0


class TargetError(RuntimeError):
    """The server under test cannot run the scenario. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a server, with the headers that hold its keys."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def call(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """GET `path`, or POST `body` as JSON. Returns status and body. Raises `TargetError` if there is no
        answer.
        """
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **self.headers, **(headers or {})}
        request = urllib.request.Request(self.url + path, data, sent)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            raise TargetError(
                f"{self.url} does not answer ({error}); start the server, or give --url"
            ) from None

    def json(self, path: str, body: object = None) -> Any:
        """Return the JSON of an answer with status 200. None for any other status, or if the body is not
        JSON.
        """
        status, content = self.call(path, body)
        try:
            return json.loads(content) if status == 200 else None
        except ValueError:
            return None
