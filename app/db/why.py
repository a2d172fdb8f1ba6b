"""The columns that say why something failed."""

from app.domain.causes.classifier import Rules
from app.domain.causes.fingerprint import fingerprint
from app.domain.models import Item


def why(rules: Rules, item: Item, *, status_code: int | None) -> dict[str, str | None]:
    """The columns that say why a row failed; all null for a row that did not."""
    cause = rules.of_transaction(
        item.message,
        status=item.status,
        integration_type=item.integration_type,
        status_code=status_code,
    )
    return because(rules, cause, item.message)


def because(rules: Rules, cause: str | None, message: str | None) -> dict[str, str | None]:
    """The columns of a cause, on a transaction or on a sync."""
    if cause is None:
        return dict.fromkeys(("cause", "fingerprint", "cause_rules"))
    return {"cause": cause, "fingerprint": fingerprint(message), "cause_rules": rules.version}
