"""Notices: a sentence about the latest action, which the next page shows once.

A notice is a short text in a cookie, so that no address passes it on to others.
"""

from fastapi import Request, Response

from app.web.pages.labels import counted, from_key

COOKIE = "sync-health-notice"
MAX_AGE_S = 600
_TEXTS = {
    "refresh": "Refreshing from Codat… This page updates when the answer arrives.",
    "replay": "The webhook is being processed again.",
    "resend": "The message is being sent again.",
    "retry_repeated": "Retry already requested; not sent again.",
}
_ACTIONS = {"refresh": "Refresh from Codat", "retry": "Retry failed items", "replay": "Replay"}


def set_notice(response: Response, notice: str) -> None:
    """Leave a notice: a key of `_TEXTS`, or `retry:` with the number of items."""
    response.set_cookie(COOKIE, notice, max_age=MAX_AGE_S, httponly=True, samesite="lax")


def expired_notice(action: str) -> dict[str, str]:
    """The header that leaves the notice that an action was not carried out."""
    response = Response()
    set_notice(response, f"expired:{action}")
    return {"Set-Cookie": response.headers["set-cookie"]}


def clear_notice(response: Response) -> None:
    """Remove the notice that a page has shown."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


def read_notice(request: Request) -> str | None:
    """The notice that the latest action has left, as a text."""
    kind, _, detail = request.cookies.get(COOKIE, "").partition(":")
    if kind == "retry" and detail.isdecimal() and len(detail) < 10:
        return (
            f"Retry requested. Your expense system will resend {counted(int(detail), 'item')}; "
            "the result appears in the next sync."
        )
    if kind == "expired" and detail.isascii() and len(detail) < 100:
        action = _ACTIONS.get(detail, from_key(detail))
        return f"Your session had expired: “{action}” was not carried out. Select it again."
    return _TEXTS.get(kind)
