"""Why something failed: from Codat's codes and messages to a cause, who must act, and what next.

The knowledge is in two tables beside this file: `causes.toml` says what a cause means in plain
words, `rules.toml` which messages and codes lead to it. The first rule that fits wins. What
no rule recognises is `unclassified`: a wrong cause costs more than none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Literal, get_args

from app.domain.causes.fingerprint import FORM, plain
from app.domain.causes.patterns import Pattern
from app.domain.status_codes import phase_of
from app.domain.transactions import is_failing

Who = Literal["customer", "us", "accounting_software", "codat"]
SendAgain = Literal["helps", "after_next_step", "never_helps"]
About = Literal["transaction", "sync"]

WHO: tuple[Who, ...] = get_args(Who)
SEND_AGAIN: tuple[SendAgain, ...] = get_args(SendAgain)
ABOUT: tuple[About, ...] = get_args(About)
UNCLASSIFIED = "unclassified"
REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for failures. `customer` is a sentence that can be sent to the customer."""

    key: str
    title: str
    text: str
    customer: str
    who: Who
    next_step: str
    send_again: SendAgain


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed transaction, or of a sync that failed as a whole."""

    about: About
    message: str | None = None
    status: str | None = None
    integration_type: str | None = None
    status_code: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Leads to the cause when everything it names fits; an empty part fits everything.

    `messages` are alternatives, matched against the message in its plain form.
    """

    cause: str
    messages: tuple[Pattern, ...] = ()
    status_codes: tuple[int, ...] = ()
    statuses: tuple[str, ...] = ()
    integration_types: tuple[str, ...] = ()
    about: tuple[About, ...] = ()

    def fits(self, failure: Failure) -> bool:
        """True when the rule leads from this failure to its cause; the message is in plain form."""
        return (
            (not self.about or failure.about in self.about)
            and (not self.status_codes or failure.status_code in self.status_codes)
            and _is_one_of(failure.status, self.statuses)
            and _is_one_of(failure.integration_type, self.integration_types)
            and self._speaks_of(failure.message or "")
        )

    def _speaks_of(self, message: str) -> bool:
        return not self.messages or any(each.is_in(message) for each in self.messages)


def _is_one_of(word: str | None, wanted: tuple[str, ...]) -> bool:
    return not wanted or (word or "").strip().lower() in wanted


@dataclass(frozen=True)
class Rules:
    """The rules in their order, and the causes they lead to. The same tables, the same version."""

    causes: Mapping[str, Cause]
    rules: Sequence[Rule]
    _seen: dict[Failure, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def version(self) -> str:
        """A short name for what these rules decide; rows of another version are decided anew."""
        return sha256(f"{FORM} {list(self.rules)!r}".encode()).hexdigest()[:12]

    def of_transaction(
        self,
        message: str | None,
        *,
        status: str | None,
        integration_type: str | None = None,
        status_code: int | None = None,
    ) -> str | None:
        """The key of a transaction's cause; None when it has not failed."""
        if not is_failing(status):
            return None
        about = Failure("transaction", plain(message), status, integration_type, status_code)
        return self._decide(about)

    def of_sync(
        self, status_code: int | None, error: str | None, exception: str | None = None
    ) -> str | None:
        """The key of the cause of a sync as a whole; None where its code means no failure."""
        if phase_of(status_code) != "failed":
            return None
        told = [Failure("sync", plain(m), status_code=status_code) for m in (error, exception) if m]
        told = told or [Failure("sync", "", status_code=status_code)]
        found = [self._decide(each) for each in told]
        return next((key for key in found if self._is_specific(key)), found[0])

    def _is_specific(self, key: str) -> bool:
        return key not in (UNCLASSIFIED, "codat_unavailable", "data_write_error")

    def _decide(self, failure: Failure) -> str:
        known = self._seen.get(failure)
        if known is None:
            fitting = (rule.cause for rule in self.rules if rule.fits(failure))
            known = next(fitting, UNCLASSIFIED)
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[failure] = known
        return known

    def before(self, other: "Rules") -> "Rules":
        """These rules, and the others for what these do not recognise; ours win on equal keys."""
        return Rules({**other.causes, **self.causes}, (*self.rules, *other.rules))
