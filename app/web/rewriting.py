"""Requests rewritten for the routes: HEAD as GET, and one path with or without ROOT_PATH."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET without the body. A stream ends when it has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope.update(as_get, method="HEAD")  # with the route, for the metrics
                await send(message)
                # completes the response: `receive` reports a disconnect, which ends a stream
                await send({"type": "http.response.body"})

        await self._app(as_get, receive, send_head)


class RootPath:
    """ASGI middleware: completes the path of a proxy that has removed ROOT_PATH from it.

    Behind it every path begins with `root_path`, as the ASGI specification defines it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http":
            root, path = self._root_path, scope["path"]
            raw: bytes = scope.get("raw_path") or path.encode()
            if path != root and not path.startswith(f"{root}/"):
                path, raw = root + path, root.encode() + raw
            scope.update(root_path=root, path=path, raw_path=raw)
        await self._app(scope, receive, send)
