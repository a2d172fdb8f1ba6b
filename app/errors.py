"""Every error of this service.

    ServiceError
    ├── SettingsError            a setting is missing or wrong: the start is refused
    ├── SchemaError              the database is not at the version that this code needs
    ├── SignatureError           a delivery is not provably Codat's
    ├── DatabaseUnavailable      the database cannot store or answer now
    │   ├── DatabaseDown         it cannot be reached, or is locked, full or shutting down
    │   └── DatabaseRejected     it is up, but rejects these very values
    ├── NotFound                 the resource does not exist here
    ├── Gone                     it existed, but retention has removed what is asked for
    ├── BadRequest               a caller's filter, cursor or body is wrong
    ├── Conflict                 the request is valid, but the present state forbids it
    ├── UpstreamRefused          Codat refuses what a caller asked for
    └── CodatError
        ├── CodatRefused         final until a person acts (400, 401, 402, 403, 404, 422 …)
        ├── CodatRateLimited     429: wait; costs no attempt
        └── CodatUnavailable     transient (408, 409, 5xx, time-outs, unreadable answers)

`app.web.problems` maps these to HTTP answers.
"""

from datetime import timedelta


class ServiceError(Exception):
    """The base: its text is one line that may be shown to a caller or an operator."""


class SettingsError(ServiceError):
    """A setting is missing or wrong. The text names it and never its value."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class SchemaError(ServiceError):
    """The database schema is not the one this code was written for."""


class SignatureError(ServiceError):
    """A delivery is not provably Codat's. The text is for metrics and logs only."""


class DatabaseUnavailable(ServiceError):
    """The database cannot store or answer now; trying again later is right."""


class DatabaseDown(DatabaseUnavailable):
    """The database is unreachable, locked, full or restarting: no statement would succeed now."""


class DatabaseRejected(DatabaseUnavailable):
    """The database is up but rejects these values; other values would be stored."""


class NotFound(ServiceError):
    """The company, sync, transaction or event does not exist here."""


class Gone(ServiceError):
    """The resource existed, but retention has removed what is asked for."""


class BadRequest(ServiceError):
    """A value that the caller sent is wrong; `name` is the parameter's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Conflict(ServiceError):
    """The request is valid, but the present state forbids it."""


class UpstreamRefused(ServiceError):
    """Codat refuses what a caller asked for through this service. The text may be shown."""


class CodatError(ServiceError):
    """Codat did not give what was asked for.

    `status` is the HTTP status, or None when there was no answer; `correlation_id` is Codat's own,
    for its support; `retry_after` is how long Codat asks to wait.
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
    """Codat's answer is final until a person acts: asking again changes nothing."""


class CodatRateLimited(CodatError):
    """Codat asks to wait; `retry_after` is for how long, when Codat says so.

    `status` is 429 when Codat just answered so, and None while a pause that it asked for earlier
    is in force.
    """


class CodatUnavailable(CodatError):
    """Codat cannot answer now, or its answer cannot be read: try again later."""
