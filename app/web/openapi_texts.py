"""What `/openapi.json` says: introduction, tags, and each field and parameter by its name.

A name means the same everywhere, so it is described once. A field or parameter with a
`description` of its own keeps that.
"""

INTRODUCTION = """\
Receives Codat's *Sync for Expenses* webhooks, and answers which expense of which sync failed, why,
who has to act, and what to do next.

**Authentication.** Send one of `API_KEYS` as a Bearer token: `Authorization: Bearer KEY`. The
webhook endpoint needs none: the signature authenticates a delivery.

**Values.** Times are RFC 3339 in UTC. Unknown values are null, never zero and never left out.
A parameter that a call does not have is an error.

**Paging.** A list is `{"items": […], "next": …}`. Pass `next` as `cursor` for the next page; it is
null on the last page. `limit` is 1 to 200. To follow what changes, use the change feed.

**Errors** are `application/problem+json` (RFC 9457) with `title`, `status` and `detail`. A 422
names each invalid parameter in `errors`. Repeat a request after a 503 when `Retry-After` has
passed. Every response has an `X-Request-Id`, which is in the log, too.

**Idempotency.** Every GET is safe to repeat, and so are refresh and replay. A retry that is
requested twice within a minute is sent once. The same datasets of a company are started only once
within 85 minutes. Webhook deliveries are stored once per message ID.

**Caching.** Single resources have an `ETag`. Send it as `If-None-Match` to get a 304 while nothing
has changed.
"""

TAGS = {
    "Health": "Whether the process runs and can serve, and Prometheus metrics. No key is needed.",
    "Syncs": "What became of each sync, its timeline, refresh and retry.",
    "Transactions": "The rows of a sync's list at Codat: what was written, what failed, why.",
    "Companies": "Companies with their totals and newest syncs, and calls that go to Codat.",
    "Causes": "Why transactions and syncs fail, who has to act, and what to do next.",
    "Retries": "Retries of the open transactions of many syncs: preview, request, progress.",
    "Webhooks": "Codat's deliveries, the stored events, and the secrets that verify them.",
    "Change feed": "Every change of a sync or a transaction once, in one order.",
    "Alerts": "What needs attention.",
    "Codat-compatible API": "Codat's own read paths, bodies and errors, answered from stored data.",
}

TEXTS = {
    "all_written": "Syncs that Codat's status and whole list prove complete.",
    "already_requested": "True if the same request is under way. It is not sent again.",
    "at": "When it happened.",
    "attempts": "How often it was tried.",
    "body": "The body as it was received.",
    "body_encoding": "How `body` is encoded: base64 if it is not UTF-8.",
    "by_day": "Totals by UTC day, the first day first.",
    "by_outcome": "Totals by outcome.",
    "by_status_code": "Totals by Codat's status code, syncs without one last.",
    "can_be_retried": "`True` or `False`, as Codat spells it.",
    "cause": "Why it failed, and what to do. Null if nothing failed.",
    "checks": "Each check is `ok` or the reason for its failure.",
    "companies": "Companies that are affected.",
    "company_id": "Codat's ID of the company.",
    "company_name": "The company's name at Codat. Null while it is unknown.",
    "completed": "Rows that were written.",
    "correlation_id": "Codat's ID of the failed request, for its support.",
    "current": "This page.",
    "current_status": "The status in the newest sync that lists this transaction.",
    "data_connections": "Always empty.",
    "data_pushed": "Whether Codat sent data to the accounting software.",
    "day": "The day in UTC, such as `2026-01-31`.",
    "deliveries": "How often Codat delivered the event.",
    "detail": "What is wrong, in a sentence.",
    "detailed_error_code": "Always 0.",
    "error": "What is wrong, in a sentence.",
    "error_message": "Codat's message about the sync as a whole.",
    "errors": "How much is known about the errors of the transactions.",
    "exception_message": "The technical message about the sync as a whole.",
    "failed": "Whether the transaction was not written.",
    "failure_stage": "The step that failed, as the webhook names it.",
    "fetched_at": "When Codat first returned the stored transaction list as it is.",
    "fingerprint": "Equal for messages that differ only in IDs, amounts, dates and names.",
    "finished_at": "When the sync ended.",
    "first_failed_at": "The first failure.",
    "first_seen_at": "When this service first received anything about the sync.",
    "generated_at": "When Codat created the event.",
    "group_count": "The number of all groups.",
    "history": "The transaction's rows in all syncs, newest first.",
    "href": "The address, relative to the server URL.",
    "id": "Codat's ID.",
    "in_progress": "Syncs that have not ended.",
    "integration_type": "Codat's type of the row, such as `expenses` or `bankfeeds`.",
    "items": "This page of the list.",
    "key": "The key of a cause, such as `period_closed`. `GET /api/v1/causes` lists them.",
    "kind": "What it is about, or what happened.",
    "last_error": "Why the last attempt failed.",
    "last_failed_at": "The latest failure.",
    "last_sync": "The newest sync.",
    "links": "The addresses of this page and of those beside it.",
    "message": "The message of Codat or of the accounting software.",
    "message_id": "The ID of the webhook: `webhook-id` or `svix-id` of its delivery.",
    "name": "The name.",
    "next": "The next page. Null or left out on the last page.",
    "next_step": "What support should do.",
    "nothing_to_write": "Syncs that had nothing to write.",
    "opened_at": "When the alert was opened.",
    "original_integration_type": "Codat's own spelling of the integration type.",
    "original_status": "Codat's own spelling of the status.",
    "other": "Rows with another status.",
    "outcome": "What became of the sync as a whole. Treat only `all_written` and "
    "`nothing_to_write` as success.",
    "page": "The number of the page. The first is 1.",
    "page_number": "The number of this page. The first is 1.",
    "page_size": "Items per page.",
    "parse_error": "Why the body could not be understood.",
    "parse_status": "`ok`, `unknown` (a type that Codat does not document) or `unreadable`. Null "
    "until the event is processed.",
    "partly_failed": "Syncs of which some transactions were written and some failed.",
    "pending": "Rows that are not finished.",
    "previous": "The page before. Left out on the first page.",
    "processed_at": "When the event was applied. Null while it is pending.",
    "ready": "Whether requests can be served.",
    "reason": "Why, in a sentence.",
    "received_at": "When the event was first received.",
    "redirect": "The address of Codat's Link for the company.",
    "results": "The items of this page.",
    "self": "This list.",
    "service": "The name of this service.",
    "sort": "The order. `-` is descending. Unknown values are last.",
    "started_at": "When the sync started.",
    "state": "Whether the sync is in progress, ended, or failed.",
    "retry_id": "Names a retry of many syncs.",
    "status": "The status.",
    "status_code": "Codat's status code of the sync, such as 5130.",
    "status_text": "The meaning of `status_code`.",
    "sync_exception_message": "The technical message about the sync as a whole.",
    "sync_id": "Codat's ID of the sync.",
    "sync_status": "Codat's name of the status.",
    "sync_status_code": "Codat's status code of the sync.",
    "sync_utc": "When the sync started or ended.",
    "syncs": "Syncs by outcome.",
    "text": "What happened, for support.",
    "title": "A short name.",
    "total": "How many there are.",
    "total_results": "How many there are on all pages.",
    "transaction_id": "The ID of the transaction, which is that of the expense it was sent with.",
    "transactions": "Failed transactions.",
    "type": "`about:blank`: `status` says all.",
    "unknown": "Syncs that ended, with neither success nor failure proved.",
    "updated_at": "When something visible in this response last changed.",
}
