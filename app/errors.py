"""Every error of this service. `app.web.problems` maps them to HTTP answers."""

from datetime import timedelta


class ServiceError(Exception):
    """The base: its text is one line that may be shown to a caller or an operator."""


class SettingsError(ServiceError):
    """A setting is missing or wrong. The text names it and never its value.

    `problems` are sentences, one for each setting.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


class SchemaError(ServiceError):
    """The database schema is not the one this code was written for."""


class SignatureError(ServiceError):
    """The signature of a delivery is invalid. The text is for metrics and logs only."""


class DatabaseUnavailable(ServiceError):
    """The database cannot store or answer now; trying again later is right."""


class DatabaseDown(DatabaseUnavailable):
    """The database is unreachable, locked, full or restarting: no statement would succeed now."""


class DatabaseUnusable(DatabaseDown):
    """The database answers, but must be configured differently. The text says how."""


class DatabaseReadOnly(DatabaseUnusable):
    """The server accepts no writes: after a switchover it is a standby."""


class DatabaseRejected(DatabaseUnavailable):
    """The database is up but rejects these values; other values would be stored."""


class NotFound(ServiceError):
    """The company, sync, transaction or event does not exist here."""


class Gone(ServiceError):
    """The resource existed, but retention has removed it."""


class BadRequest(ServiceError):
    """A value that the caller sent is wrong; `name` is the parameter's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Conflict(ServiceError):
    """The request is valid, but conflicts with the current state."""


class UpstreamRefused(ServiceError):
    """Codat rejects a request that a caller made through this service. The text may be shown."""


class CodatError(ServiceError):
    """A call to Codat failed.

    `status` is the HTTP status, or None when there was no answer; `correlation_id` is Codat's own,
    for its support; `retry_after` is how long to wait.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        correlation_id: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.correlation_id = correlation_id
        self.retry_after = retry_after


class CodatRefused(CodatError):
    """Codat rejects the request, and a retry will not help (400, 401, 402, 403, 404, 422 …)."""


class CodatRateLimited(CodatError):
    """Codat's rate limit is reached, which costs no attempt.

    `status` is 429 when Codat just answered so, and None while an earlier pause is in force.
    """


class CodatUnavailable(CodatError):
    """Transient: 408, 409, 5xx, a time-out, or an answer that cannot be read."""
