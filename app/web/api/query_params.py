"""Query parameters of the API. A parameter that a call does not have is an error.

Times are dates (`2026-01-31`) or RFC 3339; without a zone they are UTC. `from` is inclusive, `to`
is exclusive, but a date in `to` includes that whole day.
"""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args

from fastapi import Query
from pydantic import (
    AfterValidator,
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
from typing_extensions import TypeAliasType

from app.db.pagination import MAX_CURSOR_LENGTH
from app.db.queries.causes import CauseFilter
from app.db.queries.syncs import MAX_LIMIT
from app.web.api.schemas import Outcome, ParseStatus, State
from app.web.path_params import NO_NUL_PATTERN, REJECT_NUL

_SORTS = Literal[
    "-updated_at", "updated_at", "-started_at", "started_at", "-finished_at", "finished_at",
    "-company_id", "company_id", "-status_code", "status_code",
]  # fmt: skip
_SORT_NAMES = [  # of the constants in generated clients; an extension that generators know
    f"{sort.lstrip('-')}_{'descending' if sort.startswith('-') else 'ascending'}".upper()
    for sort in get_args(_SORTS)
]
Sort = TypeAliasType(
    "Sort", Annotated[_SORTS, Field(json_schema_extra={"x-enum-varnames": _SORT_NAMES})]
)
Format = TypeAliasType("Format", Literal["json", "csv"])
Separator = TypeAliasType("Separator", Literal[",", ";"])
Filter = TypeVar("Filter")
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


def _reject_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


_TIME_SCHEMA = WithJsonSchema(
    {
        "type": "string",
        "format": "date-time",  # a date is accepted, too; clients get one type
        "examples": ["2026-01-31", "2026-01-31T09:00:00Z"],
    }
)
From = Annotated[datetime, BeforeValidator(partial(_parse_time, end_of_day=False)), _TIME_SCHEMA]
To = Annotated[datetime, BeforeValidator(partial(_parse_time, end_of_day=True)), _TIME_SCHEMA]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000), REJECT_NUL, NO_NUL_PATTERN]
SearchText = Annotated[Text, AfterValidator(_reject_blank)]
StatusCode = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Q = (
    "A sync, company, transaction or correlation ID, or at least its first 8 characters; or words "
    "of a company name. Each may be the beginning of a word; case and accents do not matter."
)
_CAUSE_KEY = "The key of a cause, see `/causes`."


class NoParams(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")

    def to(self, kind: type[Filter]) -> Filter:
        """The filter of a query (a dataclass), filled with the parameters of the same name."""
        names = kind.__annotations__.keys() & type(self).model_fields.keys()
        return kind(**{name: getattr(self, name) for name in names})


NoQuery = Annotated[NoParams, Query()]


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

    since: From | None = Field(
        None, alias="from", description="Start (inclusive). A date or an RFC 3339 time."
    )
    until: To | None = Field(
        None, alias="to", description="End (exclusive). A date includes that whole day."
    )

    @field_validator("until")
    @classmethod
    def _require_order(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("since")
        if since and until and since >= until:
            raise PydanticCustomError("range", "must be after from")
        return until


class CsvParams(NoParams):
    """The form of a CSV file."""

    separator: Separator = Field(
        ",", description="Of CSV. Excel expects `;` where the decimal sign is a comma."
    )
    spreadsheet: bool = Field(
        default=False,
        description="CSV for Excel and LibreOffice: with a byte order mark, and an apostrophe "
        "before text that looks like a number or a date.",
    )


class ExportParams(PageParams, CsvParams):
    """Which page of a list that is also available as CSV."""

    format: Format | None = Field(None, description="Overrides the `Accept` header.")


class SyncParams(ExportParams, RangeParams):
    """Filters for syncs. If a filter has several values, any of them may match."""

    company_id: Text | None = None
    states: list[State] = Field([], alias="state", max_length=10)
    outcomes: list[Outcome] = Field([], alias="outcome", max_length=10)
    status_codes: list[StatusCode] = Field([], alias="status_code", max_length=50)
    cause: Text | None = Field(None, description=f"{_CAUSE_KEY} Selects syncs with such a failure.")
    q: SearchText | None = Field(None, description=_Q)
    sort: Sort = "-updated_at"


class TransactionParams(PageParams, SyncIdParams):
    """Filters for the transactions of one sync."""

    statuses: list[Text] = Field(
        [], alias="status", max_length=20, description="Codat's statuses, in any case."
    )
    failed: bool | None = None
    q: SearchText | None = Field(None, description="Part of an ID, a correlation ID or a message.")


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
        criteria = replace(self.to(CauseFilter), week=first_day(now, 7))
        if self.since is None and self.until is None:
            return replace(criteria, since=first_day(now))
        return criteria


class RetryParams(RangeParams):
    """Which open transactions to retry, by their latest failure. Without a filter, all of them."""

    cause: Text | None = Field(None, description=_CAUSE_KEY)
    company_id: Text | None = None


class CauseCompanyParams(CauseParams, PageParams):
    """Filters for the companies of a cause. Without `from` and `to`, the last 30 days."""


class CompanyParams(PageParams):
    """Filters for companies."""

    cannot_sync: bool | None = Field(
        None, description="True: companies whose syncs fail as a whole. False: the others."
    )

    q: SearchText | None = Field(
        None,
        description="A company ID, or at least its first 8 characters; or words of a company name.",
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

    body: bool = Field(default=False, description="Set to true to include the raw body.")


class ConfigParams(NoParams):
    """How to return a configuration."""

    download: bool = Field(default=False, description="Set to true for a file download.")


def first_day(now: datetime, days: int = DEFAULT_DAYS, zone: tzinfo = UTC) -> datetime:
    """The start of the last `days` days in this time zone, today included."""
    first = now.astimezone(zone).date() - timedelta(days=days - 1)
    return datetime.combine(first, datetime.min.time(), zone).astimezone(UTC)
