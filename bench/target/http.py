"""Send small JSON requests to the server under test, such as for its models or metrics. They are not part of
the load.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 30.0


class TargetError(RuntimeError):
    """The server under test does not answer or cannot run the scenario. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a server, with the HTTP headers that hold its keys."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def call(
        self, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a GET request for `path`, or a POST request if `body` is given, which is sent as JSON. Return
        the status and the body. Raises `TargetError` if the server does not answer, or not in HTTP.
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
            why = f"does not answer ({error}); start it, or"
        except http.client.HTTPException as error:
            why = f"did not answer in HTTP ({error!r});"
        raise TargetError(f"the server at {self.url} {why} give another address with --url")

    def json(self, path: str, body: object = None) -> Any:
        """Send a request with the arguments of `call`, and return the JSON of the answer. None if the status
        is not 200 or the body is not JSON.
        """
        status, content = self.call(path, body)
        try:
            return json.loads(content) if status == 200 else None
        except ValueError:
            return None
