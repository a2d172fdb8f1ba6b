"""Controls over the world: companies, connections, syncs, and the truth about all of them."""

from typing import Any

from fastapi import APIRouter

from simulator import answers
from simulator.access import InBox
from simulator.box import Box
from simulator.orders import AdvanceOrder, CompanyOrder, ConnectionOrder, SyncOrder
from simulator.world import Company, Sync

Json = dict[str, Any]


def sync_truth(sync: Sync, told: list[str]) -> Json:
    """All there is to know about one sync: its status answer, every row, the messages told."""
    return {
        "company_id": sync.company_id,
        "sync_id": sync.sync_id,
        "code": sync.code,
        "running": sync.running,
        "succeeded": sync.succeeded,
        "status": answers.status_body(sync),
        "items": [answers.item_body(item) for item in sync.items],
        "failed_ids": sync.failed_ids(),
        "started_at": sync.started_at,
        "finished_at": sync.finished_at,
        "message_ids": told,
    }


def _one_truth(box: Box, sync: Sync) -> Json:
    return sync_truth(sync, box.sender.log.of_syncs().get(sync.sync_id, []))


def company_truth(box: Box, company: Company) -> Json:
    """A company with the newest row status of each of its transactions over all syncs."""
    current: dict[str, str | None] = {}
    for sync in reversed(box.world.syncs_of(company.company_id)):
        for item in sync.items:
            if item.status == "Pending":
                current.setdefault(item.transaction_id, item.status)
            else:
                current[item.transaction_id] = item.status
    return {**answers.company_body(company), "transactions": current}


async def truth(box: InBox) -> Json:
    """The whole world as it is, for a checker to compare with: companies and syncs."""
    world, told = box.world, box.sender.log.of_syncs()
    return {
        "companies": [company_truth(box, one) for one in world.companies.values()],
        "syncs": [sync_truth(one, told.get(one.sync_id, [])) for one in world.syncs.values()],
    }


async def create_company(order: CompanyOrder, box: InBox) -> Json:
    """Create a company with its connections and configuration."""
    made = box.world.add_company(
        order.name, order.platform, order.company_id, connected=order.connected
    )
    return answers.company_body(made)


async def set_connection(company_id: str, order: ConnectionOrder, box: InBox) -> Json:
    """Set the state of a company's accounting connection and tell it."""
    return answers.company_body(box.set_connection(company_id, order.status))


async def create_sync(order: SyncOrder, box: InBox) -> Json:
    """Start a sync, and end it when the order says how; answers its truth."""
    ids = order.transaction_ids
    if order.retry_of is not None:
        ids = box.world.syncs[order.retry_of].failed_ids()
    ending = order.ending()
    shapes = order.shapes if order.tell_start else []
    size = 3 if order.size is None else order.size
    sync = box.start_sync(order.company_id, size, order.sync_id, ids, shapes)
    if ending is not None:
        await advance_sync(sync.sync_id, order, box)
    return _one_truth(box, sync)


async def advance_sync(sync_id: str, order: AdvanceOrder, box: InBox) -> Json:
    """Give a sync its next state, now or after a while, and tell it; answers its truth."""
    ending, sync = order.ending(), box.world.syncs[sync_id]
    if ending is None:
        raise ValueError("one of outcome, code and items is needed")
    if order.after is not None:
        later = box.finish_later(sync_id, order.after, ending, order.shapes, order.plan())
        box.sender.spawn(later)
    else:
        box.advance_sync(sync_id, ending, order.shapes, order.plan())
    return _one_truth(box, sync)


async def show_sync(sync_id: str, box: InBox) -> Json:
    """The truth about one sync."""
    return _one_truth(box, box.world.syncs[sync_id])


def routes() -> APIRouter:
    """The controls of this file."""
    router = APIRouter(prefix="/_sim")
    router.get("/truth")(truth)
    router.post("/companies", status_code=201)(create_company)
    router.put("/companies/{company_id:path}/connection")(set_connection)
    router.post("/syncs", status_code=201)(create_sync)
    router.post("/syncs/{sync_id:path}/advance")(advance_sync)
    router.get("/syncs/{sync_id:path}")(show_sync)
    return router
