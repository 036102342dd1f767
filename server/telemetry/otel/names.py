"""Names of attributes and metrics in traces: OpenTelemetry's semantic conventions, and OneSeek's own.

The names for generative AI are still in development, so they are used only if the operator opts in. Sources:
https://opentelemetry.io/docs/specs/semconv/http/ and
https://github.com/open-telemetry/semantic-conventions-genai.
"""

from __future__ import annotations

from collections.abc import Mapping

OPT_IN_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"
OPT_IN = "gen_ai_latest_experimental"
"""Value of OTEL_SEMCONV_STABILITY_OPT_IN that turns on the names for generative AI. The variable can hold
several values, separated by commas.
"""

METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"
SCHEME, PATH, ERROR_TYPE = "url.scheme", "url.path", "error.type"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER_METHOD = "_OTHER"
"""Value of the attribute `http.request.method` if a client sent an unknown method."""

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
STREAM, CHOICES = "gen_ai.request.stream", "gen_ai.request.choice.count"
MAX_TOKENS, TEMPERATURE = "gen_ai.request.max_tokens", "gen_ai.request.temperature"
TOP_P, TOP_K = "gen_ai.request.top_p", "gen_ai.request.top_k"
SEED = "gen_ai.request.seed"
FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
PRESENCE_PENALTY = "gen_ai.request.presence_penalty"

REQUEST_DURATION = "gen_ai.server.request.duration"
FIRST_TOKEN = "gen_ai.server.time_to_first_token"
PER_TOKEN = "gen_ai.server.time_per_output_token"
HTTP_DURATION = "http.server.request.duration"

REQUEST_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
)  # fmt: skip
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

ONESEEK = "oneseek"
"""Value of the attribute `gen_ai.provider.name`: this server."""
OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/inference/oneseek": "chat",
    "/inference/mistral": "chat",
    "/inference/llama": "chat",
    "/api/oqt/multi-model-query": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/invocations": "chat",
}
"""Maps each endpoint that calls a model to its operation's name in the conventions for generative AI."""


def opts_in(environ: Mapping[str, str]) -> bool:
    """True if the operator has turned on the names for generative AI in `environ`."""
    values = environ.get(OPT_IN_VARIABLE, "").split(",")
    return OPT_IN in (value.strip() for value in values)
