"""The command line: `python -m app VERB`. Exit codes: 0 done, 1 failed, 2 wrong use."""

from collections.abc import Callable

import typer

from app.cli import demo, doctor, maintenance, send, serve

VERBS: dict[Callable[..., None], list[str]] = {
    serve.serve: ["python -m app serve", "WORKER_IN_WEB=false python -m app serve"],
    serve.worker: ["python -m app worker"],
    maintenance.migrate: ["python -m app migrate"],
    demo.demo: ["python -m app demo", "python -m app demo --port 9000"],
    send.send: [
        "python -m app send SyncFailed",
        "python -m app send SyncCompleted --company c1 --sync s1 --shape legacy",
        "python -m app send SyncFailed --to https://YOUR-HOST/webhooks/codat",
    ],
    maintenance.reconcile: [
        "python -m app reconcile --dry-run",
        'python -m app reconcile --company "$COMPANY" --since 2026-01-01',
    ],
    maintenance.redrive: [
        "python -m app redrive --all-dead",
        'python -m app redrive --sync "$SYNC"',
        "python -m app redrive --messages",
    ],
    maintenance.rebuild: ["python -m app rebuild"],
    maintenance.erase: ['python -m app erase --company "$COMPANY" --yes > receipt.txt'],
    maintenance.prune: ["python -m app prune", "KEEP_EVENTS_DAYS=7 python -m app prune"],
    doctor.doctor: ["python -m app doctor", "python -m app doctor --json"],
    maintenance.classify: [
        'python -m app classify "The account is archived."',
        "python -m app classify --file messages.txt",
    ],
}
"""The verbs, and examples for the help of each."""

cli = typer.Typer(
    name="app",
    help="Receive Codat Sync for Expenses webhooks and see why each item failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb, examples in VERBS.items():
    cli.command(epilog="\n\n".join(["Examples:", *examples]))(verb)

if __name__ == "__main__":
    cli()
