"""The correlation ID in an error message."""

import pytest

from app.domain.causes.correlation import correlation_id

GUID = "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"An error occurred. Correlation ID: {GUID}. Message:  Feed Connection failed(409)", GUID),
        (f"An error occurred. Correlation ID:  {GUID}. Message: x", GUID),
        (f"correlationId={GUID.upper()}", GUID),
        (f'"correlationId": "{GUID}"', GUID),
        (f"Correlation Id: {GUID.replace('-', '')}", GUID.replace("-", "")),
        (f"a {GUID} that is not a correlation ID", None),
        ("Correlation ID: none", None),
        ("", None),
        (None, None),
        ("Correlation ID: " * 100_000, None),
    ],
)
def test_correlation_id_is_found_only_where_codat_writes_it(
    message: str | None, expected: str | None
) -> None:
    """Other IDs in the message are not mistaken for the correlation ID."""
    assert correlation_id(message) == expected
