"""What a caller may ask for in a query string: every name, its form, and nothing else.

Times are dates (`2026-01-31`) or RFC 3339; without a zone they are UTC. `from` is inclusive, `to`
is not, and a `to` that is a date takes in that whole day.
"""

import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

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

from app.db.queries.causes import CauseFilter
from app.db.queries.syncs import MOST_AT_ONCE, SyncFilter
from app.db.queries.transactions import ErrorFilter, ItemFilter
from app.domain.sync_state import Outcome, State
from app.web.path_params import plain_text

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
LONGEST_CURSOR = 4000
_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d$)")  # an unencoded + arrives as a blank


def _moment(given: Any, *, whole_day: bool) -> datetime:
    text = _LOST_PLUS.sub("+", str(given))
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return day + timedelta(days=1) if whole_day else day
        if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", text):
            raise ValueError(text)
        at = datetime.fromisoformat(text.upper())
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time", "must be a date or an RFC 3339 time") from None


_TIME = WithJsonSchema(
    {
        "type": "string",
        "anyOf": [{"format": "date"}, {"format": "date-time"}],
        "examples": ["2026-01-31", "2026-01-31T09:00:00Z"],
    }
)
From = Annotated[datetime, BeforeValidator(partial(_moment, whole_day=False)), _TIME]
To = Annotated[datetime, BeforeValidator(partial(_moment, whole_day=True)), _TIME]
Word = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(plain_text)]
Search = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, strip_whitespace=True),
    AfterValidator(plain_text),
]
StatusCode = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Nothing(BaseModel):
    """No parameters: any that comes is named as wrong."""

    model_config = ConfigDict(extra="forbid")


class Whose(Nothing):
    """Which company's sync is meant, where two companies have a sync of one id."""

    company_id: Word | None = Field(None, description="needed only where sync ids collide")


class Paged(Nothing):
    """Which page."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MOST_AT_ONCE, description="rows per page")
    cursor: str | None = Field(
        None, min_length=1, max_length=LONGEST_CURSOR, description="`next` of the page before"
    )


class Between(Nothing):
    """A range of time."""

    from_: From | None = Field(None, alias="from", description="inclusive; a date or RFC 3339")
    to: To | None = Field(None, description="exclusive, but a date takes in its whole day")

    @field_validator("to")
    @classmethod
    def _in_order(cls, to: datetime | None, told: ValidationInfo) -> datetime | None:
        since = told.data.get("from_")
        if since and to and since > to:
            raise PydanticCustomError("range", "must not be before from")
        return to


class Exported(Paged):
    """A list that can also be had as CSV: whole, unless a limit is given."""

    format: Format | None = Field(None, description="instead of the `Accept` header")

    @property
    def most(self) -> int | None:
        """How many rows a CSV may have at most; None is all."""
        return self.limit if "limit" in self.model_fields_set else None


class SyncQuery(Exported, Between):
    """The filters of the list of syncs. Several values of one filter mean any of them."""

    company_id: Word | None = None
    state: list[State] = Field([], max_length=10)
    outcome: list[Outcome] = Field([], max_length=10)
    status_code: list[StatusCode] = Field([], max_length=50)
    cause: Word | None = Field(None, description="a cause's key: syncs with such a failure")
    q: Search | None = Field(
        None,
        description="a sync, company, transaction or correlation id, or a company name's beginning",
    )
    sort: Sort = "-updated_at"

    def wanted(self) -> SyncFilter:
        """The filter for storage."""
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


class ItemQuery(Paged, Whose):
    """The filters of one sync's transactions."""

    status: list[Word] = Field([], max_length=20, description="Codat's words, in any case")
    failed: bool | None = None
    q: Search | None = Field(None, description="part of an id, a correlation id or a message")

    def wanted(self) -> ItemFilter:
        """The filter for storage."""
        return ItemFilter(statuses=self.status, failed=self.failed, q=self.q)


class TimelineQuery(Paged, Whose):
    """Which page of whose timeline."""


class ErrorQuery(Exported, Between):
    """The filters of the failed transactions over all syncs."""

    company_id: Word | None = None
    cause: Word | None = Field(None, description="a cause's key, see /causes")
    open: bool | None = Field(None, description="true: no later sync completed it; false: one did")
    q: Search | None = Field(
        None,
        description="a sync, company, transaction or correlation id, or a company name's beginning",
    )

    def wanted(self) -> ErrorFilter:
        """The filter for storage."""
        return ErrorFilter(
            company_id=self.company_id,
            cause=self.cause,
            open=self.open,
            since=self.from_,
            until=self.to,
            q=self.q,
        )


class ChangeQuery(Nothing):
    """From where on changes are wanted."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MOST_AT_ONCE, description="changes per page")
    after: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_CURSOR,
        description="the `cursor` of the last change known, or `next`; without it the oldest kept",
    )


class CauseQuery(Between):
    """The filters of the causes."""

    company_id: Word | None = None

    def wanted(self, cause: str | None = None) -> CauseFilter:
        """The filter for storage."""
        return CauseFilter(company_id=self.company_id, cause=cause, since=self.from_, until=self.to)


class CompanyQuery(Paged):
    """The filters of the list of companies."""

    q: Search | None = Field(None, description="a company's id, or its name's beginning")


class EventQuery(Paged):
    """The filters of the kept webhooks."""

    reading: Literal["ok", "unknown", "unreadable"] | None = None


class BodyQuery(Nothing):
    """Whether the raw body is wanted too."""

    body: bool = Field(False, description="true adds the webhook's raw body")
