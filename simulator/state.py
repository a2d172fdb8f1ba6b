"""The simulated state: companies, connections, syncs and transactions, without any I/O."""

import random
from dataclasses import dataclass
from typing import Any

from simulator.clock import Clock, format_sync_time, format_time
from simulator.outcomes import (
    FEED_ALREADY_CONNECTED,
    OUTCOMES,
    Transaction,
    make_transactions,
    random_uuid,
    sync_error_message,
)

Json = dict[str, Any]
PLATFORMS: dict[str, tuple[str, str]] = {  # integration key and id
    "Xero": ("gbol", "8a156a5a-39cb-4f9d-856e-76ef9b9a9607"),
    "QuickBooks Online": ("qhyg", "6b113e06-e818-45d7-977b-8e6bb3d01269"),
    "Oracle NetSuite": ("akxx", "cc750323-5a47-4f28-8d8e-30fbbf2ce137"),
    "Sage Intacct": ("knfz", "bb473c15-3bd3-4b1c-a8cb-4b8e1a3c5b0e"),
}
EXPENSE_PLATFORM = ("Partner Expense", "Expense", "mxts", "f2b5f5c4-3c02-4a9c-9a3f-0c5a55c7e2d1")


class UnknownIdError(LookupError):
    """No company or sync has this id."""

    def __init__(self, kind: str, unknown_id: str) -> None:
        super().__init__(f"No {kind} was found with ID {unknown_id}")
        self.kind = kind


@dataclass
class Company:
    """A company.

    `connections` are an accounting and an expense Connection as in Codat's Platform API.
    """

    company_id: str
    name: str
    created: str
    connections: list[Json]
    config: Json
    tags: dict[str, str]
    description: str = "Corporate card customer"

    @property
    def connected(self) -> bool:
        """Whether every connection is linked, which a sync needs and the daily quota counts."""
        return all(c["status"] == "Linked" for c in self.connections)


@dataclass
class Sync:
    """One sync; `sync_utc` is the only time that Codat's API reports for it."""

    company_id: str
    sync_id: str
    sync_utc: str
    transactions: list[Transaction]
    code: int = OUTCOMES["in_progress"]
    error_message: str = ""
    exception_message: str = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.code < 2000

    @property
    def succeeded(self) -> bool:
        """Whether it ended with a 2xxx code."""
        return 2000 <= self.code < 3000

    def transaction_ids(self, *, failed: bool = False) -> list[str]:
        """List the ids of its transactions, or of those with a failed row, without repeats."""
        rows = (row for row in self.transactions if row.failed or not failed)
        return list(dict.fromkeys(row.transaction_id for row in rows))


class State:
    """All companies and syncs, generated from one seed."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self.companies: dict[str, Company] = {}
        self.syncs: dict[str, Sync] = {}

    def company(self, company_id: str) -> Company:
        """Return a company. Raises UnknownIdError."""
        if company_id not in self.companies:
            raise UnknownIdError("company", company_id)
        return self.companies[company_id]

    def sync(self, sync_id: str, company_id: str | None = None) -> Sync:
        """Return a sync, if it belongs to the company where one is named. Raises UnknownIdError."""
        sync = self.syncs.get(sync_id)
        if sync is None or company_id not in (None, sync.company_id):
            raise UnknownIdError("sync", sync_id)
        return sync

    def company_syncs(self, company_id: str) -> list[Sync]:
        """List a company's syncs, newest first. Raises UnknownIdError."""
        self.company(company_id)
        return [sync for sync in self.syncs.values() if sync.company_id == company_id][::-1]

    def connected_companies(self) -> int:
        """Count the companies with live connections."""
        return sum(company.connected for company in self.companies.values())

    def add_company(
        self, name: str, platform: str = "Xero", company_id: str | None = None
    ) -> Company:
        """Add a company; an unknown platform gets Xero's integration ids."""
        created = format_time(self._clock.now())
        accounting = PLATFORMS.get(platform, PLATFORMS["Xero"])
        connections = [
            self._connection(created, platform, "Accounting", *accounting),
            self._connection(created, *EXPENSE_PLATFORM),
        ]
        config = {
            key: {"id": str(self._rng.randint(10, 400))}
            for key in ("bankAccount", "supplier", "customer")
        }
        company_id = company_id or random_uuid(self._rng)
        for connection in connections:
            path = f"companies/{company_id}/connections/{connection['id']}/start"
            connection["linkUrl"] = f"https://link-api.codat.io/{path}"
        tags = {"region": self._rng.choice(("uk", "us"))}
        self.companies[company_id] = Company(company_id, name, created, connections, config, tags)
        return self.companies[company_id]

    def _connection(
        self, created: str, platform: str, source_type: str, key: str, integration_id: str
    ) -> Json:
        return {
            "id": random_uuid(self._rng),
            "integrationId": integration_id,
            "integrationKey": key,
            "sourceId": random_uuid(self._rng),
            "platformName": platform,
            "status": "Linked",
            "lastSync": created,
            "created": created,
            "sourceType": source_type,
        }

    def start_sync(
        self, company_id: str, size: int = 3, transaction_ids: list[str] | None = None
    ) -> Sync:
        """Start a sync of the given transactions, or of `size` new ones. Raises UnknownIdError."""
        self.company(company_id)
        ids = transaction_ids or [random_uuid(self._rng) for _ in range(size)]
        now = format_sync_time(self._clock.now())
        transactions = make_transactions("in_progress", ids, self._rng)
        sync = Sync(company_id, random_uuid(self._rng), now, transactions)
        self.syncs[sync.sync_id] = sync
        return sync

    def advance_sync(self, sync_id: str, outcome: str) -> Sync:
        """Give a sync the status code, error messages and rows of an outcome.

        Raises UnknownIdError.
        """
        sync = self.sync(sync_id)
        sync.transactions = make_transactions(outcome, sync.transaction_ids(), self._rng)
        sync.code = OUTCOMES[outcome]
        sync.sync_utc = format_sync_time(self._clock.now())
        # Codat's samples have the same text twice, with different correlation ids.
        sync.error_message = self._error_message(sync)
        sync.exception_message = self._error_message(sync)
        return sync

    def _error_message(self, sync: Sync) -> str:
        messages = (row.message for row in sync.transactions if row.failed and row.message)
        reason = next(messages, FEED_ALREADY_CONNECTED).split("Message:")[-1].strip()
        platform = self.company(sync.company_id).connections[0]["platformName"]
        return sync_error_message(sync.code, sync.company_id, platform, reason, self._rng)
