"""`POST /tokenize` and `POST /detokenize`, in vLLM's shapes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, question, reply
from server.api.fields.decode import to_fields
from server.api.fields.generation import HINTS, DetokenizeFields, TokenizeFields
from server.api.parsing.messages import parse_messages
from server.api.parsing.sampling import check_ids
from server.api.wire.body import JSON_TYPES, read_body
from server.errors import bad_field
from server.exchange import exchange_of


class Tokenize:
    """Both endpoints. All adapters share the base's tokenizer; an unknown model is refused all the same."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def tokenize(self, request: Request) -> Response:
        """A prompt or a conversation → `{"count", "max_model_len", "tokens", "token_strs"}`."""
        value = await read_body(request.scope, request.receive, self._context.settings.max_body, JSON_TYPES)
        body = to_fields(value, TokenizeFields, hints=HINTS)
        service = self._context.service_for(request, body.model)
        generation, runtime = service.generation, service.runtime
        if (body.prompt is None) == (body.messages is None):
            raise bad_field("prompt", "Send either prompt or messages.", code="invalid_value")
        generation.check_name(exchange_of(request.scope), question(request, body.model, ()))
        if body.messages is not None:
            tokens = await generation.chat(
                parse_messages(body.messages),
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
            )
        else:
            tokens = await generation.encode(body.prompt or "", "prompt", body.add_special_tokens)
        texts = [runtime.tokenizer.token_text(token) for token in tokens] if body.return_token_strs else None
        return reply(
            {
                "count": len(tokens),
                "max_model_len": runtime.info.context,
                "tokens": tokens,
                "token_strs": texts,
            }
        )

    async def detokenize(self, request: Request) -> Response:
        """Token ids → `{"prompt"}`, special tokens left out."""
        value = await read_body(request.scope, request.receive, self._context.settings.max_body, JSON_TYPES)
        body = to_fields(value, DetokenizeFields)
        service = self._context.service_for(request, body.model)
        generation = service.generation
        generation.check_name(exchange_of(request.scope), question(request, body.model, ()))
        return reply(
            {"prompt": await generation.decode(check_ids(body.tokens, "tokens", service.runtime.info))}
        )
