"""Query parameters of the API. A parameter that a call does not have is an error.

Times are dates (`2026-01-31`) or RFC 3339; without a zone they are UTC. `from` is inclusive, `to`
is exclusive, but a date in `to` includes that whole day.
"""

import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.db.pagination import MAX_CURSOR_LENGTH
from app.db.queries.causes import CauseFilter
from app.db.queries.syncs import MAX_LIMIT, SyncFilter
from app.db.queries.transactions import PushErrorFilter, TransactionFilter
from app.domain.models import ParseStatus
from app.domain.sync_state import Outcome, State
from app.web.path_params import NO_NUL_PATTERN, REJECT_NUL

Sort = Literal[
    "-updated_at",
    "updated_at",
    "-started_at",
    "started_at",
    "-finished_at",
    "finished_at",
    "-company_id",
    "company_id",
    "-status_code",
    "status_code",
]
Format = Literal["json", "csv"]
DEFAULT_LIMIT = 50
DEFAULT_DAYS = 30
_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d$)")  # a + that is not encoded arrives as a space


def _parse_time(value: Any, *, end_of_day: bool) -> datetime:
    text = _LOST_PLUS.sub("+", str(value))
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return day + timedelta(days=1) if end_of_day else day
        if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", text):
            raise ValueError(text)
        at = datetime.fromisoformat(text.upper())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time", "must be a date or an RFC 3339 time") from None


_TIME_SCHEMA = WithJsonSchema(
    {
        "type": "string",
        "anyOf": [{"format": "date"}, {"format": "date-time"}],
        "examples": ["2026-01-31", "2026-01-31T09:00:00Z"],
    }
)
From = Annotated[datetime, BeforeValidator(partial(_parse_time, end_of_day=False)), _TIME_SCHEMA]
To = Annotated[datetime, BeforeValidator(partial(_parse_time, end_of_day=True)), _TIME_SCHEMA]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000), REJECT_NUL, NO_NUL_PATTERN]
SearchText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, strip_whitespace=True),
    REJECT_NUL,
    NO_NUL_PATTERN,
]
StatusCode = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Q = "A sync, company, transaction or correlation ID, or the beginning of a company name."
_CAUSE_KEY = "The key of a cause, see `/causes`."


class NoParams(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


class SyncIdParams(NoParams):
    """Which company's sync is meant."""

    company_id: Text | None = Field(
        None, description="Required only if two companies have a sync with this ID."
    )


class PageParams(NoParams):
    """Which page of a list."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Items per page.")
    cursor: str | None = Field(
        None, min_length=1, max_length=MAX_CURSOR_LENGTH, description="`next` of the previous page."
    )


class RangeParams(NoParams):
    """A time range."""

    from_: From | None = Field(
        None, alias="from", description="Start (inclusive). A date or an RFC 3339 time."
    )
    to: To | None = Field(None, description="End (exclusive). A date includes that whole day.")

    @field_validator("to")
    @classmethod
    def _require_order(cls, to: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("from_")
        if since and to and since >= to:
            raise PydanticCustomError("range", "must be after from")
        return to


class ExportParams(PageParams):
    """Which page of a list that is also available as CSV."""

    format: Format | None = Field(None, description="Overrides the `Accept` header.")

    @property
    def csv_limit(self) -> int | None:
        """The maximum number of CSV rows; None for all: the default limit is for pages only."""
        return self.limit if "limit" in self.model_fields_set else None


class SyncParams(ExportParams, RangeParams):
    """Filters for syncs. If a filter has several values, any of them may match."""

    company_id: Text | None = None
    state: list[State] = Field([], max_length=10)
    outcome: list[Outcome] = Field([], max_length=10)
    status_code: list[StatusCode] = Field([], max_length=50)
    cause: Text | None = Field(None, description=f"{_CAUSE_KEY} Selects syncs with such a failure.")
    q: SearchText | None = Field(None, description=_Q)
    sort: Sort = "-updated_at"

    def to_filter(self) -> SyncFilter:
        """The filter for the query."""
        return SyncFilter(
            company_id=self.company_id,
            states=self.state,
            outcomes=self.outcome,
            status_codes=self.status_code,
            cause=self.cause,
            since=self.from_,
            until=self.to,
            q=self.q,
        )


class TransactionParams(PageParams, SyncIdParams):
    """Filters for the transactions of one sync."""

    status: list[Text] = Field([], max_length=20, description="Codat's statuses, in any case.")
    failed: bool | None = None
    q: SearchText | None = Field(None, description="Part of an ID, a correlation ID or a message.")

    def to_filter(self) -> TransactionFilter:
        """The filter for the query."""
        return TransactionFilter(statuses=self.status, failed=self.failed, q=self.q)


class TimelineParams(PageParams, SyncIdParams):
    """Which page of which sync's timeline."""


class PushErrorParams(ExportParams, RangeParams):
    """Filters for failed transactions over all syncs."""

    company_id: Text | None = None
    cause: Text | None = Field(None, description=_CAUSE_KEY)
    open: bool | None = Field(
        None, description="True: no later sync completed the transaction. False: one did."
    )
    q: SearchText | None = Field(None, description=_Q)

    def to_filter(self) -> PushErrorFilter:
        """The filter for the query."""
        return PushErrorFilter(
            company_id=self.company_id,
            cause=self.cause,
            open=self.open,
            since=self.from_,
            until=self.to,
            q=self.q,
        )


class ChangeParams(NoParams):
    """Where to continue the change feed."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Changes per page.")
    after: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CURSOR_LENGTH,
        description="The `cursor` of the last change you have processed, or `next`. "
        "Without it, the feed begins with the oldest stored change.",
    )


class CauseParams(RangeParams):
    """Filters for causes. Without `from` and `to`, the last 30 days."""

    company_id: Text | None = None

    def to_filter(self, now: datetime) -> CauseFilter:
        """The filter for the query."""
        since = self.from_
        if self.from_ is None and self.to is None:
            since = first_day(now)
        return CauseFilter(company_id=self.company_id, since=since, until=self.to)


class CompanyParams(PageParams):
    """Filters for companies."""

    q: SearchText | None = Field(
        None, description="A company ID, or the beginning of a company name."
    )


class EventParams(PageParams):
    """Filters for webhook events."""

    parse_status: ParseStatus | None = Field(
        None,
        description="`unknown`: a type that Codat does not document. `unreadable`: not valid JSON, "
        "or IDs are missing.",
    )


class BodyParams(NoParams):
    """Whether to include the raw body."""

    body: bool = Field(False, description="Set to true to include the raw body.")


class ConfigParams(NoParams):
    """How to return a configuration."""

    download: bool = Field(False, description="Set to true for a file download.")


def first_day(now: datetime, days: int = DEFAULT_DAYS) -> datetime:
    """Midnight UTC at the start of the last `days` days, today included."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=days - 1)
