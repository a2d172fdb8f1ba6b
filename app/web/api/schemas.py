"""The JSON of the API: request bodies and responses. `app.web.api.serializers` fills them.

Field names are those of the records they are made from, so that most fields need no other line of
code. CSV columns are derived from these models too. Times are RFC 3339 in UTC. What is unknown is
null, never zero and never left out.
"""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypeAliasType

from app.domain import models, outgoing, sync_state, transactions
from app.domain.causes import classifier
from app.web.path_params import NO_NUL_PATTERN, REJECT_NUL

MAX_DATASETS = 500
MAX_NOTE = 1000
NoteText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NOTE, strip_whitespace=True),
    REJECT_NUL,
    NO_NUL_PATTERN,
]

# Named types get a name of their own in `/openapi.json`, and so in generated clients.
State = TypeAliasType("State", sync_state.State)
Outcome = TypeAliasType("Outcome", sync_state.Outcome)
ErrorsState = TypeAliasType("ErrorsState", sync_state.ErrorsState)
TransactionClass = TypeAliasType("TransactionClass", transactions.TransactionClass)
ParseStatus = TypeAliasType("ParseStatus", models.ParseStatus)
Owner = TypeAliasType("Owner", classifier.Owner)
RetryAdvice = TypeAliasType("RetryAdvice", classifier.RetryAdvice)
DeliveryState = TypeAliasType("DeliveryState", outgoing.DeliveryState)
ChangeKind = TypeAliasType("ChangeKind", Literal["sync", "transaction"])
CompanyState = TypeAliasType(
    "CompanyState", Literal["cannot_sync", "open_failures", "nothing_open"]
)
BodyEncoding = TypeAliasType("BodyEncoding", Literal["utf-8", "base64"])


class Schema(BaseModel):
    """Base of all responses."""

    model_config = ConfigDict(from_attributes=True)


Item = TypeVar("Item")


class List(Schema, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(description="The cursor of the next page. Null on the last page.")


class Cause(Schema):
    """Why something failed, and what to do about it."""

    key: str = Field(description="The value for the `cause` filters.")
    title: str
    owner: Owner | None = Field(description="Who has to act.")
    next_step: str | None
    customer_message: str | None = Field(description="Can be sent to the customer unedited.")
    retry_advice: RetryAdvice | None = Field(description="Whether resending the expense helps.")


class TransactionCounts(Schema):
    """Numbers of rows by class. All are null while no list has been read."""

    total: int | None = Field(default=None, description="Rows stored here.")
    completed: int | None = None
    failed: int | None = None
    pending: int | None = None
    other: int | None = None
    expected: int | None = Field(default=None, description="Rows that Codat announced.")


class Errors(Schema):
    """How much is known about the errors of a sync's transactions."""

    state: ErrorsState = Field(
        description="`not_needed`: nothing failed or the sync is in progress. `waiting`: Codat has "
        "not answered yet. `fetched`: complete. `incomplete`: the list is not final; another "
        "attempt follows. `given_up`: no more attempts."
    )
    attempts: int = Field(
        description="Attempts of the current fetch. If everything is known, of the fetch that last "
        "changed anything."
    )
    next_attempt_at: datetime | None = Field(
        description="Null while an attempt is running or none is due."
    )
    fetched_at: datetime | None
    last_error: str | None


class SyncIdentity(Schema):
    """Which sync it is, of which company."""

    company_id: str
    company_name: str | None
    sync_id: str


class SyncFields(Schema):
    """The fields of a sync that come from Codat. The change feed has the same fields."""

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
    transactions: TransactionCounts
    cause: Cause | None = Field(
        description="Why the sync failed as a whole. Null if its failed transactions have causes."
    )


class Sync(SyncFields, SyncIdentity):
    """One sync."""

    source_platform: str | None = Field(
        description="The platform of the company's connection to its accounting software."
    )
    updated_at: datetime
    errors: Errors
    open_failures: int | None = Field(
        description="Failed rows that no later sync has completed. Null while no list has been "
        "read."
    )


class LastRetry(Schema):
    """The latest request to retry a sync's failed transactions, and its delivery."""

    message_id: str = Field(description="The `webhook-id` of the request.")
    recipient_host: str | None = Field(
        description="The host of `RETRY_WEBHOOK_URL`. Null if the setting has changed since."
    )
    requested_at: datetime = Field(description="When the retry was requested.")
    state: DeliveryState = Field(
        description="`waiting`: not delivered yet. `given_up`: no more attempts."
    )
    attempts: int = Field(description="Attempts to deliver it, including one that is running.")
    next_attempt_at: datetime | None = Field(
        description="Null while an attempt is running or none is due."
    )
    last_error: str | None
    ended_at: datetime | None = Field(description="When it was delivered or given up.")


class SyncDetails(Sync):
    """One sync, and whether its failed transactions can be retried."""

    no_retry_reason: str | None = Field(
        description="Why there is nothing to retry. Null if there is."
    )
    last_retry: LastRetry | None = Field(
        description="The latest request to retry its failed transactions. Null if there is none."
    )


class SyncList(List[Sync]):
    """One page of syncs."""


class Transaction(Schema):
    """One row of a sync's transaction list."""

    transaction_id: str | None
    integration_type: str | None
    status: str | None = Field(description="As Codat spells it.")
    message: str | None
    failed: bool
    correlation_id: str | None
    cause: Cause | None
    fingerprint: str | None = Field(description="Equal for equal messages of all companies.")
    sync_id: str
    company_id: str
    company_name: str | None
    position: int = Field(description="Position in Codat's list. The first row is 0.")
    current_status: TransactionClass = Field(
        description="The status in the newest sync that lists this transaction."
    )
    resolved_by: str | None = Field(
        description="The first later sync that completed a failed transaction."
    )


class TransactionList(List[Transaction]):
    """One page of transaction rows."""


class TransactionRows(Schema):
    """All rows of one transaction in one sync. Rows repeat, one per integration type."""

    items: list[Transaction]


class TransactionAttempt(Transaction):
    """A row with the time of its sync."""

    at: datetime


class TransactionHistory(Schema):
    """The current status of a transaction, and its rows in all syncs, newest first."""

    company_id: str
    transaction_id: str
    current_status: TransactionClass
    resolved_by: str | None = Field(
        description="The sync that completed the transaction after its latest failure."
    )
    history: list[TransactionAttempt]


class TimelineEntry(Schema):
    """Something that happened to a sync, and the reason."""

    at: datetime
    kind: str
    reason: str
    message_id: str | None = Field(description="The webhook event, if it was one.")


class Timeline(List[TimelineEntry]):
    """One page of a timeline, oldest entry first."""


class RefreshAccepted(Schema):
    """A fetch of this sync is queued."""

    company_id: str
    sync_id: str


class RetryAccepted(RefreshAccepted):
    """A retry request is queued."""

    message_id: str = Field(description="The `webhook-id` of the request.")
    transactions: int = Field(description="Failed rows in the request.")
    already_requested: bool = Field(
        description="True if the same retry was requested less than a minute ago, or is not "
        "delivered yet. It is not sent again."
    )


class RetryPreview(Schema):
    """What a retry with this filter would request."""

    syncs: int = Field(description="Messages: one per sync.")
    items: int = Field(description="Open transactions.")
    companies: int


class RetriesAccepted(Schema):
    """Retry requests are queued."""

    retry_id: str | None = Field(
        description="For `GET /retries/{retry_id}`. Null if every sync had been requested singly."
    )
    syncs: int = Field(description="Syncs for which a message is sent.")
    transactions: int = Field(description="Failed rows in these messages.")
    already_requested: int = Field(description="Syncs for which the same was requested before.")
    is_complete: bool = Field(description="False if more syncs are left: repeat the request.")


class RetryProgress(Schema):
    """How far the messages of a retry have been delivered."""

    requested_at: datetime = Field(description="When the retry was requested.")
    syncs: int = Field(description="Messages: one per sync.")
    waiting: int = Field(description="Messages that are not delivered yet.")
    delivered: int = Field(description="Messages that the receiver has accepted.")
    given_up: int = Field(description="Messages without further attempts.")
    next_attempt_at: datetime | None = Field(description="Null if none is waiting.")
    last_error: str | None = Field(description="Of a message that is not delivered.")


class SyncTotals(Schema):
    """Numbers of syncs by outcome."""

    total: int
    in_progress: int
    all_written: int
    nothing_to_write: int
    partly_failed: int
    failed: int
    unknown: int


class CannotSync(Schema):
    """A company whose syncs have failed as a whole since the last one that did not."""

    since: datetime = Field(description="The time of the first of these syncs.")
    cause: Cause = Field(description="Why the latest of these syncs failed.")
    sync_id: str = Field(description="The latest of these syncs.")


class Company(Schema):
    """One company."""

    company_id: str
    company_name: str | None
    syncs: SyncTotals
    state: CompanyState = Field(
        description="`cannot_sync`: its syncs fail as a whole. `open_failures`: transactions have "
        "failed that no later sync has completed. `nothing_open`: neither."
    )
    cannot_sync: CannotSync | None = Field(
        description="Why it cannot sync, and since when. Null in any other state."
    )
    open_failures: int = Field(description="Failed transactions that no later sync has completed.")
    last_sync: Sync | None
    connection_state: str | None = Field(
        description="`Linked`, `Deauthorized` and so on, as Codat spells it, or `Deleted`."
    )


class CompanyList(List[Company]):
    """One page of companies: those that cannot sync first, then the others by name."""


class StartSyncRequest(BaseModel):
    """The datasets to sync."""

    model_config = ConfigDict(extra="forbid")

    dataset_ids: list[UUID] = Field(
        min_length=1, max_length=MAX_DATASETS, description="Codat's IDs of the datasets."
    )


class SyncStarted(Schema):
    """A sync that Codat has started."""

    sync_id: str


class StatusCodeTotal(Schema):
    """The number of syncs with a status code. A null code stands for syncs without one."""

    status_code: int | None
    status_text: str | None
    total: int


class DayTotals(SyncTotals):
    """Numbers of syncs of one UTC day."""

    day: str


class Stats(Schema):
    """Numbers of syncs by outcome, status code and day."""

    total: int
    by_outcome: SyncTotals
    by_status_code: list[StatusCodeTotal]
    by_day: list[DayTotals]


class FailureTotals(Schema):
    """Numbers of failures. A transaction counts once, under its latest failure."""

    transactions: int
    open: int = Field(description="Transactions that no later sync has completed.")
    companies: int
    open_companies: int = Field(description="Companies with open transactions.")
    syncs: int = Field(description="Syncs that failed as a whole, without a failed transaction.")
    last_7_days: int = Field(
        description="Transactions and whole syncs that failed in the last seven days (UTC)."
    )
    previous_7_days: int = Field(description="The same of the seven days before.")
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    open_since: datetime | None = Field(
        description="The first failure of the open transactions. Null if none is open."
    )


class CauseTotals(FailureTotals, Cause):
    """A cause and its failures."""

    text: str | None = Field(description="What happened, for support.")
    cannot_sync: int = Field(description="Companies that cannot sync because of it now.")


class CauseList(List[CauseTotals]):
    """All causes of failures."""


class Note(Schema):
    """What somebody wrote. It is no longer shown once something new fails."""

    text: str | None
    is_handled: bool = Field(description="Whether somebody takes care of it.")
    by: str | None = Field(description="The name of the API key. Null for a key without a name.")
    at: datetime


class NewNote(BaseModel):
    """A note to store in place of the present one. Without both members, that one is removed."""

    model_config = ConfigDict(extra="forbid")

    text: NoteText | None = Field(None, description="What support should know, as plain text.")
    is_handled: bool = Field(
        default=False, strict=True, description="Whether somebody takes care of it."
    )


class CauseCompany(FailureTotals):
    """The failures of one cause at one company."""

    company_id: str
    company_name: str | None
    cannot_sync: bool = Field(description="Whether the company cannot sync because of it now.")
    note: Note | None = Field(description="What somebody wrote about it.")


class CauseCompanyList(List[CauseCompany]):
    """One page of companies, those with the most open transactions first."""


class CauseGroup(FailureTotals):
    """Failures whose messages differ only in IDs, amounts, dates and names."""

    fingerprint: str
    pattern: str = Field(description="The common part of the messages. # stands for the rest.")
    example: str | None = Field(
        description="The newest of the messages, without the envelopes around it."
    )


class CauseDetails(CauseTotals):
    """A cause, its failures and its groups."""

    group_count: int
    groups: list[CauseGroup] = Field(
        description="At most 200 groups, those with the most open transactions first."
    )


class Event(Schema):
    """A stored webhook. Until `processed_at` has a value, the fields of its body are null."""

    message_id: str
    received_at: datetime
    deliveries: int
    processed_at: datetime | None
    event_type: str | None = Field(description="The name in this service, such as `sync.failed`.")
    raw_type: str | None = Field(description="The type as the body spells it.")
    parse_status: ParseStatus | None
    parse_error: str | None
    projection_error: str | None = Field(
        description="Why the event could not be applied. Replay it once this is fixed."
    )
    company_id: str | None
    sync_id: str | None
    body_id: str | None = Field(description="The ID in the body.")
    generated_at: datetime | None


class EventList(List[Event]):
    """One page of webhook events, newest first."""


class EventWithBody(Event):
    """A stored webhook and its raw body, which is null once retention has removed it."""

    body: str | None
    body_encoding: BodyEncoding | None


class ChangedSync(SyncFields):
    """A sync after a change."""


class ChangedTransaction(Schema):
    """One row of a transaction after a change."""

    integration_type: str | None
    status: str | None
    message: str | None
    failed: bool
    correlation_id: str | None


class Change(Schema):
    """A change of a sync or of a transaction in a sync."""

    cursor: str = Field(description="The value of `after` for the changes after this one.")
    kind: ChangeKind
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    sync: ChangedSync | None = Field(description="The new state of a sync.")
    rows: list[ChangedTransaction] | None = Field(
        description="All rows that the transaction now has in this sync. "
        "Empty when Codat no longer lists it."
    )


class ChangeList(List[Change]):
    """Changes, oldest first.

    `next` is null when there are no more changes yet. Continue with the `cursor` of the last one.
    """


class Alert(Schema):
    """An open alert. `company_id` is empty if it is about this service."""

    id: int = Field(description="Names the alert while it is open.")
    cause: str
    company_id: str
    company_name: str | None
    text: str
    opened_at: datetime
    companies: int = Field(description="Companies with an open alert of this cause.")
    items: int | None = Field(
        description="Open transactions that it is about. Null if it is about something else."
    )
    first_failed_at: datetime | None = Field(
        description="The first failure that it is about. Null if it is about no failure."
    )
    note: Note | None = Field(description="What somebody wrote about it.")


class AlertList(List[Alert]):
    """One page of open alerts, newest first."""


class SecretUse(Schema):
    """One of `CODAT_WEBHOOK_SECRETS`, by its position."""

    index: int = Field(description="The position in the setting. The first is 0.")
    last_used_at: datetime | None = Field(
        description="When this process last verified a delivery with it."
    )


class SecretUseList(List[SecretUse]):
    """All webhook secrets."""

    next: None = None
    since: datetime = Field(description="When this process started.")
