"""Requests and responses rewritten around the routes: HEAD, and paths under ROOT_PATH."""

from collections.abc import Iterable, Iterator

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
    """ASGI middleware: serves under ROOT_PATH, whether or not the proxy removes it from paths.

    Behind it every path begins with `root_path`, as the ASGI specification defines it. Redirects
    and cookies need not name it: it is added to a `Location` and a cookie's path without it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root, path = self._root_path, scope["path"]
        raw: bytes = scope.get("raw_path") or path.encode()
        if path == root:
            path, raw = f"{path}/", raw + b"/"
        elif not path.startswith(f"{root}/"):
            path, raw = root + path, root.encode() + raw
        scope.update(root_path=root, path=path, raw_path=raw)

        async def send_under_root(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = list(self._add_root(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, send_under_root)

    def _add_root(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        root = self._root_path.encode()
        for name, value in headers:
            if name == b"location" and value[:1] == b"/" and not value.startswith(root + b"/"):
                yield name, root + value
            elif name == b"set-cookie":
                yield name, value.replace(b"; Path=/;", b"; Path=%s;" % root)
            else:
                yield name, value
