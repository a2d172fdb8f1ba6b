"""What our API answers about changes, and about what is handed on."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.domain.sync_state import Outcome, State
from app.web.api.schemas import TransactionCounts


class SyncState(BaseModel):
    """What a sync is from a change on."""

    state: State
    outcome: Outcome
    status_code: int | None
    status_text: str | None
    failure_stage: str | None
    error_message: str | None
    exception_message: str | None
    data_pushed: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    first_seen_at: datetime | None
    transactions: TransactionCounts


class RowState(BaseModel):
    """One row of a transaction from a change on."""

    integration_type: str | None
    status: str | None
    message: str | None
    failed: bool
    correlation_id: str | None


class ChangeAnswer(BaseModel):
    """One change; `cursor` is the place right after it."""

    cursor: str
    kind: Literal["sync", "transaction"]
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    sync: SyncState | None = Field(description="its new state; null for a transaction")
    rows: list[RowState] | None = Field(
        description="all rows the transaction has now in this sync, none when Codat no longer "
        "lists it; null for a sync"
    )


class ChangeList(BaseModel):
    """Changes, oldest first. `next` is null when there are no more yet: go on with the last
    one's `cursor` then.
    """

    items: list[ChangeAnswer]
    next: str | None


class RetryAnswer(BaseModel):
    """A retry that was handed on, or will be."""

    company_id: str
    sync_id: str
    message_id: str = Field(description="the `webhook-id` under which it is sent")
    transactions: int = Field(description="how many failed rows were handed on")
    already_requested: bool = Field(
        description="true: the same was asked for less than a minute ago, and is not sent again"
    )
