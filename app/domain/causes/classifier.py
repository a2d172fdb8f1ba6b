"""The cause classifier: from Codat's codes and messages to the cause of a failure.

`causes.toml` describes each cause, and `rules.toml` maps messages and codes to a
cause. The first matching rule wins. If no rule matches, the cause is `unclassified`, because a
wrong cause is worse than none.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, get_args

from app.domain.causes.fingerprint import ALGORITHM_VERSION, fingerprint, normalize_texts
from app.domain.causes.patterns import Pattern, grams_of
from app.domain.status_codes import phase_of
from app.domain.transactions import is_failed

Owner = Literal["customer", "us", "accounting_software", "codat"]
RetryAdvice = Literal["helps", "after_next_step", "never_helps"]
Scope = Literal["transaction", "sync"]

OWNERS: tuple[Owner, ...] = get_args(Owner)
RETRY_ADVICE: tuple[RetryAdvice, ...] = get_args(RetryAdvice)
SCOPES: tuple[Scope, ...] = get_args(Scope)
UNCLASSIFIED = "unclassified"
# Causes without a specific reason. For a sync, a specific cause in its other message wins.
_GENERIC = frozenset(
    {UNCLASSIFIED, "codat_unavailable", "data_processing_error", "data_write_error"}
)
CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something failed, who has to act, and what to do next.

    `text` and `next_step` are for support. `customer_message` can be sent to the customer as is.
    """

    key: str
    title: str
    text: str
    customer_message: str
    owner: Owner
    next_step: str
    retry_advice: RetryAdvice


def describe_cause(key: str, causes: Mapping[str, Cause]) -> dict[str, Any]:
    """The fields of a cause; of one that is no longer defined only the key, which is its title."""
    cause = causes.get(key)
    if cause is None:
        return dict.fromkeys(Cause.__slots__) | {"key": key, "title": key}
    return {name: getattr(cause, name) for name in Cause.__slots__}


@dataclass(frozen=True, slots=True)
class Failure:
    """What a rule is matched against. `texts` are the normalized texts of the message."""

    scope: Scope
    texts: tuple[str, ...] = ("",)
    status: str | None = None
    integration_type: str | None = None
    status_code: int | None = None


def _failure(
    scope: Scope,
    message: str | None,
    status: str | None = None,
    integration_type: str | None = None,
    status_code: int | None = None,
) -> Failure:
    return Failure(scope, normalize_texts(message), status, integration_type, status_code)


@dataclass(frozen=True, slots=True)
class Rule:
    """Assigns the cause to failures that meet every condition; an empty condition is always met.

    `messages` are alternative patterns. `name` says where the rule is defined.
    """

    cause: str
    messages: tuple[Pattern, ...] = ()
    status_codes: tuple[int, ...] = ()
    statuses: tuple[str, ...] = ()
    integration_types: tuple[str, ...] = ()
    applies_to: tuple[Scope, ...] = ()
    name: str = field(default="rule", repr=False, compare=False)

    def applies_to_failure(self, failure: Failure) -> bool:
        """Return whether the failure meets every condition but that of the message."""
        return (
            (not self.applies_to or failure.scope in self.applies_to)
            and (not self.status_codes or failure.status_code in self.status_codes)
            and _is_one_of(failure.status, self.statuses)
            and _is_one_of(failure.integration_type, self.integration_types)
        )

    def describe_match(self, failure: Failure) -> str:
        """Return the rule's name and the conditions that this matching failure met."""
        matches = (pattern for text in failure.texts for pattern in self._matching_patterns(text))
        pattern = next(matches, None)
        conditions = [
            f"message matches {pattern.written or pattern.text!r}" if pattern else None,
            f"status code {failure.status_code}" if self.status_codes else None,
            f"status {failure.status}" if self.statuses else None,
            f"integration type {failure.integration_type}" if self.integration_types else None,
        ]
        return f"{self.name}: {', '.join(filter(None, conditions))}"

    def _matching_patterns(self, text: str) -> Iterator[Pattern]:
        return (pattern for pattern in self.messages if pattern.matches(text))


def _is_one_of(value: str | None, allowed: tuple[str, ...]) -> bool:
    return not allowed or (value or "").strip().lower() in allowed


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a message was classified.

    `cause` is None if the status is not a failure. `rule` is None if no rule matched.
    """

    cause: str | None
    rule: str | None
    fingerprint: str


@dataclass(frozen=True)
class Classifier:
    """The causes, and the rules in the order in which they are tried."""

    causes: Mapping[str, Cause]
    rules: Sequence[Rule]
    _matches: dict[Failure, Rule | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def version(self) -> str:
        """A hash of the rules. Stored causes with another version have to be reclassified."""
        return sha256(f"{ALGORITHM_VERSION} {list(self.rules)!r}".encode()).hexdigest()[:12]

    def classify_transaction(
        self,
        message: str | None,
        *,
        status: str | None,
        integration_type: str | None = None,
        status_code: int | None = None,
    ) -> str | None:
        """Return the cause key of a transaction, or None if the transaction has not failed.

        `status_code` is the code of the transaction's sync.
        """
        if not is_failed(status):
            return None
        return self._classify(
            _failure("transaction", message, status, integration_type, status_code)
        )

    def classify_sync(
        self,
        status_code: int | None,
        error_message: str | None,
        exception_message: str | None = None,
    ) -> str | None:
        """Return the cause key of a sync as a whole, or None if its code is not a failure."""
        if phase_of(status_code) != "failed":
            return None
        messages = [text for text in (error_message, exception_message) if text] or [""]
        causes = [
            self._classify(_failure("sync", text, status_code=status_code)) for text in messages
        ]
        return next((key for key in causes if key not in _GENERIC), causes[0])

    def explain(
        self,
        message: str | None,
        *,
        status: str | None = "PushError",
        integration_type: str | None = None,
        status_code: int | None = None,
    ) -> Explanation:
        """Classify a transaction's message, and say which rule matched and why."""
        if not is_failed(status):
            return Explanation(None, None, fingerprint(message))
        failure = _failure("transaction", message, status, integration_type, status_code)
        rule = self._first_match(failure)
        return Explanation(
            cause=rule.cause if rule else UNCLASSIFIED,
            rule=rule.describe_match(failure) if rule else None,
            fingerprint=fingerprint(message),
        )

    def _classify(self, failure: Failure) -> str:
        rule = self._first_match(failure)
        return rule.cause if rule else UNCLASSIFIED

    def _first_match(self, failure: Failure) -> Rule | None:
        """Return the first rule that matches a text of the failure.

        Results are cached: many failures are alike.
        """
        try:
            return self._matches[failure]  # one lookup: hashing a failure is most of the cost
        except KeyError:
            pass
        first = len(self._alternatives)
        for text in failure.texts:
            first = self._search(failure, text, first)
        rule = self._alternatives[first][0] if first < len(self._alternatives) else None
        if len(self._matches) >= CACHE_SIZE:
            self._matches.clear()
        self._matches[failure] = rule
        return rule

    def _search(self, failure: Failure, text: str, end: int) -> int:
        """Return the number of the first alternative before `end` that matches, otherwise `end`.

        Only those patterns are tried of whose grams the text contains one of each set.
        """
        grams = grams_of(text)
        candidates = {number for gram in grams for number in self._by_gram.get(gram, ())}
        candidates.update(self._by_gram[""])
        for number in sorted(candidates):
            if number >= end:
                break
            rule, pattern = self._alternatives[number]
            if pattern and not (pattern.is_possible(grams) and pattern.matches(text)):
                continue
            if rule.applies_to_failure(failure):
                return number
        return end

    @cached_property
    def _alternatives(self) -> list[tuple[Rule, Pattern | None]]:
        """Each pattern with its rule; None for a rule without patterns."""
        return [(rule, pattern) for rule in self.rules for pattern in rule.messages or (None,)]

    @cached_property
    def _by_gram(self) -> Mapping[str, list[int]]:
        """The numbers of the alternatives by gram; under "" those that need none."""
        numbers: dict[str, list[int]] = defaultdict(list, {"": []})
        for number, (_, pattern) in enumerate(self._alternatives):
            for gram in pattern.grams[0] if pattern and pattern.grams else ("",):
                numbers[gram].append(number)
        return dict(numbers)
