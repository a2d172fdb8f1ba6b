"""The world: companies, their connections, their syncs and items. Pure state, no network."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from simulator import outcomes, wording
from simulator.clock import Clock, codat_time, plain_time
from simulator.outcomes import Item

PLATFORMS: dict[str, tuple[str, str]] = {
    "Xero": ("gbol", "8a156a5a-39cb-4f9d-856e-76ef9b9a9607"),
    "QuickBooks Online": ("qhyg", "6b113e06-e818-45d7-977b-8e6bb3d01269"),
    "Oracle NetSuite": ("akxx", "cc750323-5a47-4f28-8d8e-30fbbf2ce137"),
    "Sage Intacct": ("knfz", "bb473c15-3bd3-4b1c-a8cb-4b8e1a3c5b0e"),
}
EXPENSES = ("mxts", "f2b5f5c4-3c02-4a9c-9a3f-0c5a55c7e2d1")


@dataclass
class Connection:
    """A company's link to one platform; status as in Codat's `DataConnectionStatus`."""

    connection_id: str
    platform: str
    source_type: str
    integration_key: str
    integration_id: str
    source_id: str
    created: str
    status: str = "Linked"


@dataclass
class Company:
    """A customer's business as Codat knows it."""

    company_id: str
    name: str
    description: str
    created: str
    connections: list[Connection]
    config: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def platform(self) -> str:
        """The accounting software it writes to."""
        return self.connections[0].platform if self.connections else "Xero"

    @property
    def connected(self) -> bool:
        """Whether every connection is live: what a sync needs and the daily quota counts."""
        return bool(self.connections) and all(c.status == "Linked" for c in self.connections)


@dataclass
class Sync:
    """One sync and all its rows; `sync_utc` is Codat's only time for it."""

    company_id: str
    sync_id: str
    code: int
    status: str
    error_message: str
    exception_message: str
    sync_utc: str
    data_pushed: bool
    items: list[Item]
    started_at: str
    finished_at: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return outcomes.running(self.code)

    @property
    def succeeded(self) -> bool:
        """Whether it ended with a 2xxx code."""
        return 2000 <= self.code < 3000

    def failed_ids(self) -> list[str]:
        """The transactions with a failing row, each once, in order."""
        return list(dict.fromkeys(item.transaction_id for item in self.items if item.failed))


@dataclass(frozen=True)
class Ending:
    """What a sync shall become. What is left None is derived from the rest.

    `items` beats `transaction_ids`, which beats `size` (new transactions); `code` beats `outcome`.
    """

    outcome: str | None = None
    code: int | None = None
    items: list[Item] | None = None
    transaction_ids: list[str] | None = None
    size: int | None = None
    error_message: str | None = None
    exception_message: str | None = None
    sync_utc: str | None = None


class World:
    """All companies and syncs, made from one seed. KeyError for ids it does not know."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        """An empty world."""
        self._clock = clock
        self._rng = rng
        self.companies: dict[str, Company] = {}
        self.syncs: dict[str, Sync] = {}

    def add_company(
        self,
        name: str,
        platform: str = "Xero",
        company_id: str | None = None,
        *,
        connected: bool = True,
    ) -> Company:
        """A new company with one accounting and one expense connection (none: not connected)."""
        created = plain_time(self._clock.now())
        key, integration = PLATFORMS.get(platform, PLATFORMS["Xero"])
        links = [self._link(platform, "Accounting", key, integration, created)]
        links.append(self._link("Partner Expense", "Expense", *EXPENSES, created))
        ids = (str(self._rng.randint(10, 400)) for _ in range(3))
        config = dict(
            zip(("bankAccount", "supplier", "customer"), ({"id": i} for i in ids), strict=True)
        )
        company = Company(
            company_id or wording.new_id(self._rng),
            name,
            "Corporate card customer",
            created,
            links if connected else [],
            config,
            {"region": self._rng.choice(("uk", "us"))},
        )
        self.companies[company.company_id] = company
        return company

    def _link(
        self, platform: str, source: str, key: str, integration: str, created: str
    ) -> Connection:
        first, second = wording.new_id(self._rng), wording.new_id(self._rng)
        return Connection(first, platform, source, key, integration, second, created)

    def start(
        self,
        company_id: str,
        size: int = 3,
        sync_id: str | None = None,
        transaction_ids: list[str] | None = None,
    ) -> Sync:
        """A sync in progress with its rows pending. KeyError when the company is not known."""
        company = self.companies[company_id]
        ids = transaction_ids or [wording.new_id(self._rng) for _ in range(size)]
        now = codat_time(self._clock.now())
        sync = Sync(
            company.company_id,
            sync_id or wording.new_id(self._rng),
            1000,
            "Started",
            "",
            "",
            now,
            False,
            outcomes.items_for("in_progress", ids, self._rng),
            now,
        )
        self.syncs[sync.sync_id] = sync
        return sync

    def advance(self, sync_id: str, ending: Ending) -> Sync:
        """Give a sync its next code, texts and rows; a finished one may be told anew."""
        sync = self.syncs[sync_id]
        sync.items = self._items(sync, ending)
        sync.code = self._code(ending, sync.items)
        sync.status = outcomes.status_word(sync.code)
        now = codat_time(self._clock.now())
        sync.sync_utc = ending.sync_utc or now
        sync.finished_at = None if sync.running else now
        sync.data_pushed = any(item.status == "Completed" for item in sync.items)
        self._explain(sync, ending)
        return sync

    def _items(self, sync: Sync, ending: Ending) -> list[Item]:
        if ending.items is not None:
            return list(ending.items)
        known = list(dict.fromkeys(item.transaction_id for item in sync.items))
        ids = ending.transaction_ids or known
        if ending.size is not None:
            ids = [wording.new_id(self._rng) for _ in range(ending.size)]
        return outcomes.items_for(ending.outcome or "all_written", ids, self._rng)

    def _code(self, ending: Ending, items: list[Item]) -> int:
        if ending.code is not None:
            return ending.code
        if ending.outcome is not None:
            return outcomes.OUTCOMES[ending.outcome]
        return outcomes.code_for(items)

    def _explain(self, sync: Sync, ending: Ending) -> None:
        company = self.companies[sync.company_id]
        texts = (item.message for item in sync.items if item.failed and item.message)
        reason = next(texts, wording.FEED_CONNECTED).split("Message:")[-1].strip()
        made = [
            wording.about_sync(sync.code, self._rng, sync.company_id, company.platform, reason)
            for _ in range(2)
        ]
        sync.error_message = made[0] if ending.error_message is None else ending.error_message
        told = ending.exception_message
        sync.exception_message = made[1] if told is None else told

    def syncs_of(self, company_id: str) -> list[Sync]:
        """A company's syncs, the newest first. KeyError when the company is not known."""
        company = self.companies[company_id]
        mine = [sync for sync in self.syncs.values() if sync.company_id == company.company_id]
        return mine[::-1]

    def connect(self, company_id: str, status: str) -> Company:
        """Set the state of a company's accounting connection: Linked, Deauthorized and so on."""
        company = self.companies[company_id]
        company.connections[:1] = [replace(c, status=status) for c in company.connections[:1]]
        return company
