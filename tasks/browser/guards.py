"""What is answered at all: requests of this machine's own browser, with headers that let no text of a model run.

Errors of a store, and what cannot be understood, are answered with a page.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.browser.pages import page
from tasks.browser.shelf import read_errors
from tasks.config.errors import ConfigurationError

HOSTS = ["127.0.0.1", "localhost"]
"""What may stand in the Host header: another name that leads here would let another site read the pages."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SafeHeaders:
    """Adds `HEADERS` to every answer, and refuses what is not a GET."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["method"] != "GET":
            await Response("only GET is answered: nothing is written", 405)(scope, receive, with_headers)
            return
        if Headers(scope=scope).get("sec-fetch-site") == "cross-site":
            await Response("another site leads here: open the address yourself", 403)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def guard(app: FastAPI) -> None:
    """Add the guards to an application."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    app.add_middleware(SafeHeaders)
    for error in read_errors():
        app.add_exception_handler(error, _told)
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, _told)


def _told(request: Request, error: Exception) -> Response:
    """Answer with what is wrong: a whole page, or the line alone where a script asked."""
    status, text = 503, str(error)
    if isinstance(error, ConfigurationError):
        status = 404
    elif isinstance(error, RequestValidationError):
        status, text = 404, "a value in the address is no number, or out of bounds"
    elif isinstance(error, HTTPException):
        status, text = error.status_code, f"there is no page {request.url.path[:200]}"
    template = "error_line.html" if "hx-request" in request.headers else "error.html"
    return page(template, status, error=text, store=request.app.state.store.uri)
