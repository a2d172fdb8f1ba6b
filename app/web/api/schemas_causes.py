"""What our API answers about causes."""

from datetime import datetime

from pydantic import BaseModel, Field

from app.db.queries.causes import Failing, KeptCause, KeptGroup
from app.domain.causes.classifier import Cause, SendAgain, Who
from app.domain.causes.fingerprint import masked


class _Counts(BaseModel):
    companies: int
    transactions: int = Field(description="each counts once, however often it was tried")
    open: int = Field(description="transactions that no later sync completed")
    syncs: int = Field(description="syncs that failed as a whole, with no failed transaction")
    first_seen_at: datetime | None = Field(description="of all times, whatever range is asked for")
    last_seen_at: datetime | None


class CauseGroup(_Counts):
    """The same sentence over all companies: a message without ids, amounts, dates and names."""

    fingerprint: str
    like: str = Field(description="what the messages have in common; # stands for the rest")
    example: str | None = Field(description="the newest of the messages, as it came")


class CauseAnswer(_Counts):
    """A cause in words, and its failures. `customer` is a sentence you can send as it stands."""

    cause: str
    title: str
    text: str | None
    customer: str | None
    who: Who | None = Field(description="who must act")
    next_step: str | None
    send_again: SendAgain | None = Field(description="whether sending the same again can help")
    group_count: int
    groups: list[CauseGroup] = Field(description="those with the most open transactions first")


class CauseList(BaseModel):
    """The causes that there are failures of, those with the most open transactions first."""

    items: list[CauseAnswer]
    next: str | None


def cause_answer(key: str, cause: Cause | None, kept: KeptCause | None) -> CauseAnswer:
    """A cause with its failures. A key that no rule knows any more stands for itself."""
    return CauseAnswer(
        cause=key,
        title=cause.title if cause else key,
        text=cause.text if cause else None,
        customer=cause.customer if cause else None,
        who=cause.who if cause else None,
        next_step=cause.next_step if cause else None,
        send_again=cause.send_again if cause else None,
        group_count=kept.group_count if kept else 0,
        groups=[_group(each) for each in kept.groups] if kept else [],
        **_counts(kept.failing if kept else None).model_dump(),
    )


def _group(kept: KeptGroup) -> CauseGroup:
    return CauseGroup(
        fingerprint=kept.fingerprint,
        like=masked(kept.example),
        example=kept.example,
        **_counts(kept.failing).model_dump(),
    )


def _counts(failing: Failing | None) -> _Counts:
    if failing is None:
        nothing = dict.fromkeys(("companies", "transactions", "open", "syncs"), 0)
        return _Counts(**nothing, first_seen_at=None, last_seen_at=None)
    return _Counts.model_validate(failing, from_attributes=True)
