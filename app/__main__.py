"""The command line: `python -m app VERB`. Exit codes: 0 done, 1 failed, 2 wrong use."""

import typer

from app.cli import demo, doctor, maintenance, send, serve

VERBS = (
    serve.serve,
    serve.worker,
    maintenance.migrate,
    demo.demo,
    send.send,
    maintenance.reconcile,
    maintenance.redrive,
    maintenance.rebuild,
    maintenance.erase,
    maintenance.prune,
    doctor.doctor,
    maintenance.classify,
)

cli = typer.Typer(
    name="app",
    help="Receive Codat Sync for Expenses webhooks and see why each item failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in VERBS:
    cli.command()(verb)

if __name__ == "__main__":
    cli()
