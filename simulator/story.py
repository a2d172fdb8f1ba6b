"""The plot of the lively morning: who does what at which simulated minute."""

import random
from dataclasses import dataclass

MINUTE = 60.0
MORNING_SECONDS = 180 * MINUTE
SYNCS = 40

COMPANIES = (
    ("Harbour Lane Bakery", "Xero"),
    ("Copperfield Plumbing Ltd", "QuickBooks Online"),
    ("Toft & Daughters Stores", "Xero"),
    ("Nordlicht Fahrräder", "Sage Intacct"),
    ("Old Mill Brewing Co.", "Oracle NetSuite"),
    ("Mariposa Floristas", "QuickBooks Online"),
)
HEALTHY = (0, 1, 2, 4)


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    `minute` counts from the morning's start, `lasts` is how many minutes the sync takes; `shapes`
    tell its end, `started` its start (`started_late` so many minutes later than it was).
    `retries` names the step whose failed transactions are sent again.
    """

    minute: float
    company: int
    outcome: str = ""
    size: int = 4
    shapes: tuple[str, ...] = ("new",)
    lasts: float = 3.0
    name: str = ""
    retries: str = ""
    started: bool = False
    started_late: float = 0.0
    copies: int = 1
    family: str | None = None
    completed_first: bool = False
    connection: str = ""
    unknown_event: bool = False


STORY = (
    Step(1, 0, "partly_failed", 5, ("legacy",), name="feed", started=True),
    Step(4, 1, "all_written", 6),
    Step(8, 2, "nothing_to_write", 0, ("legacy",), started=True),
    Step(12, 4, "validation_error", 4, name="totals"),
    Step(18, 5, "config_error", 3, ("legacy",), started=True),
    Step(24, 1, "partly_failed", 4, ("legacy", "new"), name="double"),
    Step(31, 3, "all_written", 3, ("legacy",), copies=3),
    Step(38, 3, "deauthorised", 2, connection="Deauthorized"),
    Step(46, 0, "all_written", 2, ("legacy",), retries="feed", started=True),
    Step(55, 2, "write_error", 3, ("legacy",), started_late=9),
    Step(63, 5, "billing_expiry", 2),
    Step(70, 4, "partly_failed", 230, name="large"),
    Step(78, 1, "duplicate_protection", 2, ("legacy",), family="svix"),
    Step(86, 2, unknown_event=True),
    Step(94, 0, "partly_failed", 5, ("legacy",), completed_first=True),
    Step(102, 4, "server_error", 3, ("new-without-transactions",)),
    Step(111, 3, "disconnected", 2, ("legacy",)),
    Step(124, 5, "in_progress", 3, started=True),
    Step(133, 4, "all_written", 3, retries="totals"),
    Step(141, 3, "all_written", 4, connection="Linked"),
)


def everyday(rng: random.Random, minute: float, companies: tuple[int, ...]) -> Step:
    """An ordinary sync: mostly well, sometimes partly failed, in either generation."""
    outcome = rng.choices(
        ("all_written", "nothing_to_write", "partly_failed", "write_error", "validation_error"),
        (60, 12, 16, 6, 6),
    )[0]
    shape = rng.choice(("legacy", "new"))
    family = "svix" if rng.random() < 0.15 else None
    size = 0 if outcome == "nothing_to_write" else rng.randint(2, 9)
    return Step(
        minute,
        rng.choice(companies),
        outcome,
        size,
        (shape,),
        rng.uniform(1, 5),
        family=family,
        started=shape == "legacy",
    )


def plot(rng: random.Random) -> list[Step]:
    """The whole morning in order of time: the story, filled up with everyday syncs to forty."""
    fillers = SYNCS - sum(bool(step.outcome) for step in STORY)
    gap = (MORNING_SECONDS / MINUTE - 12) / fillers
    ordinary = [everyday(rng, 6 + gap * (n + rng.random()), HEALTHY) for n in range(fillers)]
    return sorted([*STORY, *ordinary], key=lambda step: step.minute)
