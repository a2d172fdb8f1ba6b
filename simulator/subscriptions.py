"""Webhook consumers: who listens to what, with which secrets, and whether Codat gave up on them."""

import asyncio
import base64
import random
from dataclasses import dataclass, field
from typing import Any

from simulator import wording
from simulator.settings import SubscriptionSettings

DAY = 86_400.0
DISABLED_AFTER = 5 * DAY
SECRET_KEPT = DAY
MAX_SECRETS = 10
MAX_SUBSCRIPTIONS = 50


def new_secret(rng: random.Random) -> str:
    """A signing secret in svix's form: `whsec_` and 24 bytes of base64."""
    return "whsec_" + base64.b64encode(rng.randbytes(24)).decode()


@dataclass
class Subscription:
    """One consumer; `secrets` holds (secret, end of validity in simulated seconds)."""

    subscription_id: str
    url: str
    event_types: list[str]
    family: str
    method: str
    headers: dict[str, str]
    secrets: list[tuple[str, float]]
    company_tags: list[str] = field(default_factory=list)
    failing_since: float | None = None
    enabled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def disabled(self) -> bool:
        """Whether nothing is sent to it."""
        return not self.enabled.is_set()

    def listens(self, event_type: str) -> bool:
        """Whether it wants this event; no list means every event."""
        return not self.event_types or event_type in self.event_types

    def valid_secrets(self, elapsed: float) -> list[str]:
        """The secrets to sign with now, newest first."""
        return [secret for secret, end in self.secrets if elapsed < end]

    def rotate(self, secret: str, elapsed: float, keep: float = SECRET_KEPT) -> None:
        """Sign with a new secret too; the old ones stay valid for `keep` simulated seconds more.

        At svix that is a day by default and at most ten old secrets (docs.svix.com).
        """
        old = [(known, min(end, elapsed + keep)) for known, end in self.secrets]
        self.secrets = [(secret, float("inf")), *old[:MAX_SECRETS]]

    def note(self, ok: bool, elapsed: float) -> None:
        """Count one attempt's result; failing without a break for 5 days disables the consumer.

        See docs.codat.io/using-the-api/webhooks/troubleshooting.
        """
        if ok:
            self.failing_since = None
            return
        if self.failing_since is None:
            self.failing_since = elapsed
        elif elapsed - self.failing_since >= DISABLED_AFTER:
            self.enabled.clear()

    def enable(self) -> None:
        """Let attempts go out again, also those that were waiting."""
        self.failing_since = None
        self.enabled.set()

    def public_body(self) -> dict[str, Any]:
        """WebhookConsumer as `GET /webhooks` shows it: never a secret."""
        body: dict[str, Any] = {
            "id": self.subscription_id,
            "url": self.url,
            "eventTypes": self.event_types,
            "disabled": self.disabled,
        }
        return {**body, "companyTags": self.company_tags} if self.company_tags else body

    def full_body(self) -> dict[str, Any]:
        """The consumer with its secrets, as only Codat's Portal would show it."""
        secrets = [secret for secret, _ in self.secrets]
        kept = {"family": self.family, "method": self.method, "secrets": secrets}
        return {**self.public_body(), **kept}


def subscribe(settings: SubscriptionSettings, rng: random.Random) -> Subscription:
    """An enabled consumer from settings; an empty secret means a fresh one."""
    secret = settings.secret or new_secret(rng)
    made = Subscription(
        wording.new_id(rng),
        settings.url,
        list(settings.event_types),
        settings.family,
        settings.method,
        dict(settings.headers),
        [(secret, float("inf"))],
    )
    made.enabled.set()
    return made
