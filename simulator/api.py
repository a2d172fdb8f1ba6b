"""Codat's REST API: one function per endpoint, from an authenticated call to an answer.

Shapes and statuses as in Codat's published OpenAPI files (github.com/codatio/oas, Sync for
Expenses and Platform). The simulator is addressed with today's paths.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from simulator import answers, refusals
from simulator.answers import Call, Reply
from simulator.box import Box
from simulator.faults import Fault
from simulator.refusals import RefusalError
from simulator.settings import SubscriptionSettings
from simulator.subscriptions import MAX_SUBSCRIPTIONS, subscribe
from simulator.world import Company, Ending, Sync

Handler = Callable[[Box, Call], Reply]
EXPENSES = "companies/{company}/sync/expenses"


@dataclass(frozen=True)
class Endpoint:
    """A method and a pattern of segments, the name the counters use, and who answers."""

    method: str
    pattern: str
    kind: str
    handler: Handler


def _company(box: Box, call: Call) -> Company:
    company = box.world.companies.get(call.params["company"])
    if company is None:
        raise refusals.no_company(call.params["company"])
    return company


def _sync(box: Box, call: Call) -> Sync:
    company, wanted = _company(box, call), call.params["sync"]
    sync = box.world.syncs.get(wanted)
    if sync is None or sync.company_id != company.company_id:
        raise refusals.no_sync(wanted)
    return sync


def companies(box: Box, call: Call) -> Reply:
    """A page of companies; `query` and `orderBy` change nothing, as Codat documents for them."""
    rows = [answers.company_body(company) for company in box.world.companies.values()]
    return Reply(200, answers.page_body(rows, call, "/companies"))


def company(box: Box, call: Call) -> Reply:
    """One company, or 404."""
    return Reply(200, answers.company_body(_company(box, call)))


def connections(box: Box, call: Call) -> Reply:
    """A page of a company's connections."""
    found = _company(box, call)
    rows = [answers.connection_body(found.company_id, one) for one in found.connections]
    href = answers.path_of("companies", found.company_id, "connections")
    return Reply(200, answers.page_body(rows, call, href))


def config(box: Box, call: Call) -> Reply:
    """The company's sync configuration: bank account, supplier and customer ids."""
    return Reply(200, _company(box, call).config)


def sync_list(box: Box, call: Call) -> Reply:
    """All statuses of a company as a bare array, newest first, without paging."""
    syncs = box.world.syncs_of(_company(box, call).company_id)
    rows = [answers.status_body(sync) for sync in syncs]
    return Reply(200, answers.distorted(rows, 1, max(1, len(rows)), call.fault)[0])


def sync_latest(box: Box, call: Call) -> Reply:
    """The status of the sync that was started last; 404 when there is none."""
    return _first(box.world.syncs_of(_company(box, call).company_id), "latest")


def sync_last_successful(box: Box, call: Call) -> Reply:
    """The status of the newest sync with a 2xxx code; 404 when there is none."""
    syncs = box.world.syncs_of(_company(box, call).company_id)
    return _first([sync for sync in syncs if sync.succeeded], "lastSuccessful")


def _first(syncs: list[Sync], wanted: str) -> Reply:
    if not syncs:
        raise refusals.no_sync(wanted)
    return Reply(200, answers.status_body(syncs[0]))


def sync_status(box: Box, call: Call) -> Reply:
    """The status of one sync; 404 when the company has no such sync."""
    return Reply(200, answers.status_body(_sync(box, call)))


def transactions(box: Box, call: Call) -> Reply:
    """A page of a sync's rows; the `_links` keep the older addresses, as Codat's samples do."""
    sync = _sync(box, call)
    rows = [answers.item_body(item) for item in sync.items]
    href = answers.path_of("companies", sync.company_id, "syncs", sync.sync_id, "transactions")
    return Reply(200, answers.page_body(rows, call, href))


def transaction(box: Box, call: Call) -> Reply:
    """All rows of one transaction as an array; 404 when it is not in this sync."""
    sync, wanted = _sync(box, call), call.params["transaction"]
    rows = [answers.item_body(item) for item in sync.items if item.transaction_id == wanted]
    if not rows:
        text = f"No transaction was found with ID {wanted}"
        raise RefusalError(404, text, "ExpenseSyncApi")
    return Reply(200, rows)


def initiate(box: Box, call: Call) -> Reply:
    """Start a sync: 202 and its id; 400 without datasets, 422 unconnected, 409 while one runs.

    An `Idempotency-Key` answers the same id again, or 422 with another body
    (docs.codat.io/using-the-api/write-data/idempotency).
    """
    found = _company(box, call)
    datasets = _datasets(call.body)
    key = call.headers.get("idempotency-key", "")
    if key in box.initiated:
        return _initiated_before(box.initiated[key], call.body)
    if not found.connected:
        raise RefusalError(422, service="ExpenseSyncApi")
    _not_twice(box, found)
    sync = box.start_sync(found.company_id, size=2 * len(datasets))
    if key:
        box.initiated[key] = (call.body, sync.sync_id)
    if box.settings.finish_initiated_after is not None:
        outcome = box.dice.choice(("all_written", "all_written", "partly_failed"))
        delay = box.settings.finish_initiated_after
        box.sender.spawn(box.finish_later(sync.sync_id, delay, Ending(outcome)))
    return Reply(202, {"syncId": sync.sync_id})


def _not_twice(box: Box, found: Company) -> None:
    ongoing = any(sync.running for sync in box.world.syncs_of(found.company_id))
    if ongoing and box.settings.refuse_while_running:
        text = "A sync is already in progress for this company."
        raise RefusalError(409, text, "ExpenseSyncApi")


def _initiated_before(known: tuple[bytes, str], body: bytes) -> Reply:
    if known[0] != body:
        text = "The idempotency key was used with another request body."
        raise RefusalError(422, text)
    return Reply(202, {"syncId": known[1]})


def _datasets(body: bytes) -> list[str]:
    wanted = _json(body).get("datasetIds")
    if isinstance(wanted, list) and wanted and all(isinstance(one, str) for one in wanted):
        return wanted
    problem = {"itemId": "datasetIds", "message": "At least one dataset id is required."}
    text = "There are problems with the request, see the Validation property for more detail."
    raise RefusalError(400, text, "ExpenseSyncApi", validation=[problem])


def _json(body: bytes) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except ValueError:
        raise RefusalError(400) from None
    if not isinstance(read, dict):
        raise RefusalError(400)
    return read


def push(box: Box, call: Call) -> Reply:
    """A page of the company's push operations, newest sync first."""
    found = _company(box, call)
    syncs = box.world.syncs_of(found.company_id)
    rows = [row for sync in syncs for row in answers.push_bodies(found, sync)]
    href = answers.path_of("companies", found.company_id, "push")
    return Reply(200, answers.page_body(rows, call, href))


def webhooks(box: Box, _: Call) -> Reply:
    """All consumers without paging; never a secret."""
    known = box.sender.subscriptions.values()
    return Reply(200, {"results": [one.public_body() for one in known]})


def create_webhook(box: Box, call: Call) -> Reply:
    """A new consumer: 201; its secret is shown by `/_sim/subscriptions` only. 400 above 50."""
    wanted = _json(call.body)
    url, types = wanted.get("url"), wanted.get("eventTypes") or []
    full = len(box.sender.subscriptions) >= MAX_SUBSCRIPTIONS
    if full or not isinstance(url, str) or not isinstance(types, list):
        raise RefusalError(400)
    made = subscribe(SubscriptionSettings(url, "", tuple(types)), box.dice)
    made.company_tags = list(wanted.get("companyTags") or [])
    if wanted.get("disabled"):
        made.enabled.clear()
    return Reply(201, box.add_subscription(made).public_body())


ENDPOINTS = (
    Endpoint("GET", "companies", "companies", companies),
    Endpoint("GET", "companies/{company}", "company", company),
    Endpoint("GET", "companies/{company}/connections", "connections", connections),
    Endpoint("GET", "companies/{company}/push", "push", push),
    Endpoint("GET", f"{EXPENSES}/config", "config", config),
    Endpoint("POST", f"{EXPENSES}/syncs", "initiate", initiate),
    Endpoint("GET", f"{EXPENSES}/syncs/list/status", "sync_list", sync_list),
    Endpoint("GET", f"{EXPENSES}/syncs/latest/status", "sync_latest", sync_latest),
    Endpoint(
        "GET",
        f"{EXPENSES}/syncs/lastSuccessful/status",
        "sync_last_successful",
        sync_last_successful,
    ),
    Endpoint("GET", f"{EXPENSES}/syncs/{{sync}}/status", "sync_status", sync_status),
    Endpoint("GET", f"{EXPENSES}/syncs/{{sync}}/transactions", "transactions", transactions),
    Endpoint(
        "GET",
        f"{EXPENSES}/syncs/{{sync}}/transactions/{{transaction}}",
        "transaction",
        transaction,
    ),
    Endpoint("GET", "webhooks", "webhooks", webhooks),
    Endpoint("POST", "webhooks", "create_webhook", create_webhook),
)


def resolve(method: str, raw_path: str) -> tuple[Endpoint | None, dict[str, str]]:
    """The endpoint for a percent-encoded path, with its decoded parameters.

    Segments are split before they are decoded, so an id may contain an encoded slash.
    """
    segments = [unquote(part) for part in raw_path.strip("/").split("/")]
    for endpoint in ENDPOINTS:
        params = _match(endpoint.pattern.split("/"), segments)
        if endpoint.method == method and params is not None:
            return endpoint, params
    return None, {}


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params = {}
    for wanted, got in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            params[wanted[1:-1]] = got
        elif wanted != got:
            return None
    return params


def fault_refusal(fault: Fault) -> RefusalError:
    """The error answer a `status` fault asks for."""
    return RefusalError(fault.status, fault.error)
