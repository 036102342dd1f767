"""Turn errors of the libraries that read URLs, such as aiohttp, into `FetchError`s that say what to do.

The cause is recognised by the types' names and status codes along the chain of causes. The libraries' own
messages are never repeated, because they may hold a signed URL or a key.
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
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE. "
    "For a public bucket, set FSSPEC_S3_ANON=true.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS. For a public bucket, set FSSPEC_GS_TOKEN=anon.",
    "hf": "Set HF_TOKEN to a token that may read the repository.",
    "https": "Put the host's user and password into ~/.netrc, or use a public URL.",
    "http": "Put the host's user and password into ~/.netrc, or use a public URL.",
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
    """Return the `FetchError` that explains `error`, which a library raised while reading `url`."""
    chain = list(_chain(error))
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    status = next(filter(None, map(_status, chain)), None)
    if kinds & {"OfflineModeIsEnabled"}:
        reason = "the adapter is not fetched, because HF_HUB_OFFLINE is set (the engine vllm sets it)"
        return FetchError(url, "unreachable", reason, "Set HF_HUB_OFFLINE=0.")
    if status in (401, 403) or kinds & _FORBIDDEN:
        return _forbidden(url, status)
    if status in (404, 410) or kinds & _MISSING:
        return missing(url)
    if any(isinstance(one, ssl.SSLError) for one in chain) or "ClientSSLError" in kinds:
        remedy = "Correct the host's certificate, or set SSL_CERT_FILE to the file of its issuer."
        return FetchError(url, "unreachable", "this machine does not trust the host's certificate", remedy)
    if any(isinstance(one, socket.gaierror) for one in chain) or kinds & _UNRESOLVED:
        remedy = "Correct the host name, or check your DNS."
        return FetchError(url, "unreachable", "DNS has no address for the host's name", remedy)
    if kinds & _TIMEOUTS:
        return FetchError(
            url, "timeout", "the host did not answer in time", "Check the network, and try again."
        )
    if status is not None:
        reason = f"the host answers with HTTP status {status}" + (
            ", which is a redirect" if 300 <= status < 400 else ""
        )
        return FetchError(url, "unreachable", reason, "Try again later, or correct the URL.")
    if kinds & _BROKEN:
        return FetchError(
            url, "unreachable", "the fetch was interrupted before its end", "Fetch the adapter again."
        )
    if kinds & _UNREACHABLE or _is_network(chain):
        remedy = "Check the network, the URL and the library's variables for endpoint and proxy."
        return FetchError(url, "unreachable", "the host of the URL cannot be reached", remedy)
    reason = f"the URL cannot be read ({type(error).__name__})"
    return FetchError(url, "unreachable", reason, "Check the URL and its credentials, and try again.")


def missing(url: AdapterURL) -> FetchError:
    """Return the error for a URL at which there is no adapter."""
    remedy = "Give the URL of the folder that holds adapter_config.json."
    if url.scheme == "hf":
        remedy = f"{remedy} If the repository is private, set HF_TOKEN."
    elif url.authority in ("huggingface.co", "hf.co"):
        remedy = "Write hf://OWNER/NAME."
    return FetchError(
        url, "missing", "the folder at the URL is missing, or holds no adapter_config.json", remedy
    )


def _forbidden(url: AdapterURL, status: int | None) -> FetchError:
    answered = f" (HTTP status {status})" if status else ""
    reason = f"the host refuses access with the credentials that are set on this machine{answered}"
    return FetchError(url, "forbidden", reason, _CREDENTIALS[url.scheme])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of aiohttp, httpx, botocore or gcsfs; None if there is none."""
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
