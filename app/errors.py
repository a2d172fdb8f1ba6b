"""Every error of this service by name.

    ServiceError
    ├── SettingsError            a setting is missing or wrong: the start is refused
    ├── SchemaError              the database is not at the version this code needs
    ├── SignatureError           a delivery is not provably Codat's
    ├── StorageUnavailable       the database cannot keep or answer now
    │   ├── StorageAway          it cannot be reached, or is locked, full or shutting down
    │   └── StorageRefused       it is there, but refuses these very values
    ├── NotKnown                 the thing asked for is not kept here
    ├── NoLongerKept             it is known, but what is asked for was removed by retention
    ├── BadRequest               a caller's filter, cursor or body is wrong
    ├── Conflicting              the request is fine but the moment is not
    ├── Declined                 Codat will not do for us what a caller asked for
    └── CodatError
        ├── CodatRefused         final until a human acts (400, 401, 402, 403, 404, 422 …)
        ├── CodatRateLimited     429: wait, this costs no attempt
        └── CodatUnavailable     passing (408, 409, 5xx, time-outs, unreadable answers)

The doors own the one table that maps these to HTTP answers.
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
    """A delivery is not provably Codat's. The text is for counters and logs only."""


class StorageUnavailable(ServiceError):
    """The database cannot keep or answer now; asking again later is right."""


class StorageAway(StorageUnavailable):
    """The database is away, locked, full or restarting: no work whatever would succeed now."""


class StorageRefused(StorageUnavailable):
    """The database is there but refuses these values; without them it would work."""


class NotKnown(ServiceError):
    """The company, sync, transaction or event asked for is not kept here."""


class NoLongerKept(ServiceError):
    """The thing is known here, but the part asked for has been removed by retention."""


class BadRequest(ServiceError):
    """A value the caller sent is wrong; `name` is the parameter's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Conflicting(ServiceError):
    """The request is understood, but the present state forbids it."""


class Declined(ServiceError):
    """Codat will not do what a caller asked for through us. The text is ours and may be shown."""


class CodatError(ServiceError):
    """Codat did not give what was asked for.

    `status` is the HTTP status, or None when there was no answer at all;
    `correlation_id` is Codat's own, for its support.
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
    """Codat's answer is final until a human acts: asking again changes nothing."""


class CodatRateLimited(CodatError):
    """Codat asks us to wait. `retry_after` says how long, when Codat does.

    `status` is 429 when Codat just said so, and None when we rest because it said so before.
    """


class CodatUnavailable(CodatError):
    """Codat cannot answer now, or its answer cannot be read: ask again later."""
