"""What our API answers: the fields of the contract; `app.web.api.serializers` fills them.

Times are RFC 3339 in UTC. Whatever is not known is null, never a zero and never left out.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.db.queries.transactions import ItemOutcome
from app.domain.causes.classifier import SendAgain, Who
from app.domain.sync_state import ErrorsState, Outcome, State


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class TransactionCounts(_Answer):
    """How many rows are in which class; all null while no list is known."""

    total: int | None = Field(default=None, description="rows, as Codat counts them")
    completed: int | None = None
    failed: int | None = None
    pending: int | None = None
    other: int | None = None
    expected: int | None = Field(default=None, description="how many rows Codat says there are")


class Errors(_Answer):
    """How much is known of the sync's item errors, and what is done about it."""

    state: ErrorsState
    attempts: int
    next_attempt_at: datetime | None = Field(description="null while one runs, or none is owed")
    fetched_at: datetime | None
    last_error: str | None


class SyncAnswer(_Answer):
    """One sync."""

    company_id: str
    company_name: str | None
    sync_id: str
    state: State
    status_code: int | None
    status_text: str | None
    outcome: Outcome
    failure_stage: str | None
    error_message: str | None
    exception_message: str | None
    data_pushed: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    first_seen_at: datetime | None
    updated_at: datetime
    source_platform: str | None = Field(
        description="of the company's connection to its accounting software; null while not known"
    )
    transactions: TransactionCounts
    errors: Errors
    cause: str | None = Field(
        description="why it failed as a whole; null where its failed transactions tell, see /causes"
    )


class SyncList(_Answer):
    """One page of syncs."""

    items: list[SyncAnswer]
    next: str | None


class TransactionAnswer(_Answer):
    """One row of a sync's transaction list, with what later syncs made of the transaction."""

    transaction_id: str | None
    integration_type: str | None
    status: str | None = Field(description="Codat's word, as it came")
    message: str | None
    failed: bool
    correlation_id: str | None
    cause: str | None = Field(description="why it failed: a key of /causes")
    sync_id: str
    company_id: str
    position: int = Field(description="place in Codat's list, from 0")
    current: ItemOutcome = Field(
        description="the outcome in the company's newest sync that has this transaction"
    )
    cured_by: str | None = Field(description="the first later sync that completed it")
    fingerprint: str | None = Field(description="what equal failures share, over all companies")
    cause_title: str | None = Field(description="the cause in a few words")
    cause_who: Who | None = Field(description="who must act")
    cause_next_step: str | None
    cause_customer: str | None = Field(description="a sentence for the customer, ready to send")
    cause_send_again: SendAgain | None = Field(description="whether sending the same again helps")


class TransactionList(_Answer):
    """One page of transactions."""

    items: list[TransactionAnswer]
    next: str | None


class TransactionRows(_Answer):
    """All rows of one transaction in one sync: one per integration type, or even the same twice."""

    items: list[TransactionAnswer]


class PastTransaction(TransactionAnswer):
    """A row with its sync's own time."""

    at: datetime


class TransactionHistory(_Answer):
    """Did it reach the books? The current outcome, and the rows of all syncs, newest first."""

    company_id: str
    transaction_id: str
    current: ItemOutcome
    cured_by: str | None = Field(description="the sync that completed it after its last failure")
    history: list[PastTransaction]


class StepAnswer(_Answer):
    """One thing that happened to a sync, and why."""

    at: datetime
    kind: str
    reason: str
    event_id: str | None = Field(description="the kept webhook this was, if any")


class Timeline(_Answer):
    """One page of a sync's timeline, oldest first."""

    items: list[StepAnswer]
    next: str | None


class Asked(_Answer):
    """Codat will be asked again about this sync."""

    company_id: str
    sync_id: str


class SyncTotals(_Answer):
    """How many syncs ended how."""

    total: int
    in_progress: int
    all_written: int
    nothing_to_write: int
    partly_failed: int
    failed: int
    unknown: int


class CompanyAnswer(_Answer):
    """One company."""

    company_id: str
    company_name: str | None
    syncs: SyncTotals
    open_failures: int = Field(description="failed transactions no later sync completed")
    last_sync: SyncAnswer | None
    connection_state: str | None = Field(
        description="Codat's word (`Linked`, `Deauthorized` …) or `Deleted`; null while not known"
    )


class CompanyList(_Answer):
    """One page of companies."""

    items: list[CompanyAnswer]
    next: str | None


class StatusCodeTotal(_Answer):
    """How many syncs have a status code; null are those Codat gave none for yet."""

    status_code: int | None
    status_text: str | None
    total: int


class DayTotals(SyncTotals):
    """How the syncs of one UTC day ended."""

    day: str


class StatsAnswer(_Answer):
    """Syncs of a range of time, by outcome, status code and day."""

    total: int
    by_outcome: SyncTotals
    by_status_code: list[StatusCodeTotal]
    by_day: list[DayTotals]


class EventAnswer(_Answer):
    """One kept webhook. `event_id` is its message id; `body_id` the id inside its body."""

    event_id: str
    body_id: str | None
    event: str
    event_type: str | None
    reading: str
    reason: str | None
    company_id: str | None
    sync_id: str | None
    generated_at: datetime | None
    received_at: datetime


class EventList(_Answer):
    """One page of kept webhooks, newest first."""

    items: list[EventAnswer]
    next: str | None


class EventWithBody(EventAnswer):
    """A kept webhook and its raw body; null once it has been pruned."""

    body: str | None
    body_encoding: Literal["utf-8", "base64"] | None


class Replayed(EventAnswer):
    """A kept webhook as it is read now, and the sync it speaks of."""

    changed: bool = Field(description="it has another meaning now, which has been applied")
    sync: SyncAnswer | None


class AlertAnswer(_Answer):
    """Something that somebody must look at; `company_id` is empty where it is about us."""

    cause: str
    company_id: str
    text: str
    opened_at: datetime


class AlertList(_Answer):
    """A page of the open alerts. There is one per cause and company."""

    items: list[AlertAnswer]
    next: str | None
