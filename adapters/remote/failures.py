"""What the libraries that read URLs raise, as errors that people can act on.

Goes by types' names and status codes along the chain of causes. Their texts are never repeated: they may hold
a signed address or a key.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from adapters.remote.errors import FetchError
from adapters.remote.url import AdapterURL

_CREDENTIALS: Mapping[str, str] = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket "
    "FSSPEC_S3_ANON=true.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket FSSPEC_GS_TOKEN=anon.",
    "hf": "Set HF_TOKEN to a token that may read the repository.",
    "https": "Put the host's user and password into ~/.netrc, or name a URL that anyone may read.",
    "http": "Put the host's user and password into ~/.netrc, or name a URL that anyone may read.",
}
_FORBIDDEN = frozenset(
    {
        "PermissionError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "ProfileNotFound",
        "GatedRepoError",
        "DefaultCredentialsError",
        "RefreshError",
        "LocalTokenNotFoundError",
    }
)
_MISSING = frozenset(
    {"FileNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError", "NoSuchBucket", "NotFound"}
)
_UNRESOLVED = frozenset({"gaierror", "ClientConnectorDNSError"})
_UNREACHABLE = frozenset(
    {
        "ClientConnectorError",
        "ClientOSError",
        "ConnectError",
        "ConnectionError",
        "EndpointConnectionError",
        "ProxyError",
        "ProxyConnectionError",
        "ClientProxyConnectionError",
    }
)
_BROKEN = frozenset(
    {"ClientPayloadError", "IncompleteReadError", "ServerDisconnectedError", "RemoteProtocolError"}
    | {"ConnectionClosedError", "ConnectionResetError", "ReadError", "ContentLengthError", "BlobError"}
)
_TIMEOUTS = frozenset(
    {"TimeoutError", "FSTimeoutError", "ServerTimeoutError", "SocketTimeoutError", "ReadTimeout"}
    | {"ConnectTimeout", "ConnectTimeoutError", "ReadTimeoutError", "PoolTimeout", "ConnectionTimeoutError"}
)


def explain(error: BaseException, url: AdapterURL) -> FetchError:
    """`error`, which a library raised for `url`, as what it means."""
    chain = list(_chain(error))
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    status = next(filter(None, map(_status, chain)), None)
    if kinds & {"OfflineModeIsEnabled"}:
        reason = "is not fetched, since HF_HUB_OFFLINE is set, as the engine vllm does"
        return FetchError(url, "unreachable", reason, "Set HF_HUB_OFFLINE=0.")
    if status in (401, 403) or kinds & _FORBIDDEN:
        return _forbidden(url, status)
    if status in (404, 410) or kinds & _MISSING:
        return missing(url)
    if any(isinstance(one, ssl.SSLError) for one in chain) or "ClientSSLError" in kinds:
        remedy = "Correct the host's certificate, or name its issuer's file in SSL_CERT_FILE."
        return FetchError(url, "unreachable", "has a certificate that is not trusted here", remedy)
    if any(isinstance(one, socket.gaierror) for one in chain) or kinds & _UNRESOLVED:
        remedy = "Correct the name, or check the network's DNS."
        return FetchError(url, "unreachable", "has a host whose name does not resolve", remedy)
    if kinds & _TIMEOUTS:
        return FetchError(url, "timeout", "did not answer in time", "Check the network, and try again.")
    if status is not None:
        reason = f"answers {status}" + (", which is a redirect" if 300 <= status < 400 else "")
        return FetchError(url, "unreachable", reason, "Try again later, or correct the URL.")
    if kinds & _BROKEN:
        return FetchError(url, "unreachable", "broke off before its end", "Try again.")
    if kinds & _UNREACHABLE or _is_network(chain):
        remedy = "Check the network, the URL and the library's variables for endpoint and proxy."
        return FetchError(url, "unreachable", "cannot be reached", remedy)
    reason = f"cannot be read ({type(error).__name__})"
    return FetchError(url, "unreachable", reason, "Check the URL and its credentials, and try again.")


def missing(url: AdapterURL) -> FetchError:
    """Nothing is there."""
    remedy = "Name the folder that holds adapter_config.json."
    if url.scheme == "hf":
        remedy = f"{remedy} If the repository is private, set HF_TOKEN."
    elif url.authority in ("huggingface.co", "hf.co"):
        remedy = "Write hf://OWNER/NAME."
    return FetchError(url, "missing", "holds no adapter_config.json, or is not there", remedy)


def _forbidden(url: AdapterURL, status: int | None) -> FetchError:
    answered = f" (answers {status})" if status else ""
    reason = f"may not be read with the credentials that are set here{answered}"
    return FetchError(url, "forbidden", reason, _CREDENTIALS[url.scheme])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, httpx, botocore or gcsfs carries."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        found: object = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        found = getattr(response, "status_code", None)
    elif (found := getattr(error, "status", None)) is None:
        found = getattr(error, "code", None)
    number = (
        int(found)
        if isinstance(found, int) or (isinstance(found, str) and found.isascii() and found.isdigit())
        else 0
    )
    return number if 300 <= number < 600 else None


def _is_network(chain: list[BaseException]) -> bool:
    network = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETDOWN}
    return any(isinstance(one, OSError) and one.errno in network for one in chain)
