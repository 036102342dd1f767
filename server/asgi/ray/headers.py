"""Keeps answers from having two `X-Request-ID` headers: Ray Serve adds the same one as this server."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAME = b"x-request-id"


class OneRequestId:
    """Removes this server's `X-Request-ID` header from answers, because Ray Serve adds the same one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and remove `X-Request-ID` from its answer."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message["headers"] = [one for one in headers if one[0].lower() != NAME]
            await send(message)

        await self.app(scope, receive, send_without)
