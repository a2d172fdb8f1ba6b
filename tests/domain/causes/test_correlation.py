"""The correlation ID in an error message."""

import pytest

from app.domain.causes.correlation import correlation_id

GUID = "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"
OTHER = "72e161a142c17bb5b3e480f873df0b21"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"An error occurred. Correlation ID: {GUID}. Message:  Feed Connection failed(409)", GUID),
        (f"An error occurred. Correlation ID:  {GUID}. Message: x", GUID),
        (f"Push failed. Correlation ID: {GUID.upper()}. Message: x", GUID),
        (f'{{"statusCode": 400, "error": "Oops", "correlationId": "{GUID}"}}', GUID),
        (f"The record is locked.  CorrelationId:  {GUID}.", None),
        (f"Correlation ID: {OTHER}. Message: The record is locked. CorrelationId: {GUID}.", OTHER),
        (f'{{"error": {{"message": "The record is locked. CorrelationId: {GUID}"}}}}', None),
        (f'{{"Fault": {{"Error": []}}, "correlationId": "{GUID}"}}', None),
        (f'{{"statusCode": 400, "error": "Oops", "correlationId": "{GUID}', None),
        (f"x-correlation-id={GUID}", None),
        (f"Correlation Id: {GUID.replace('-', '')}", GUID.replace("-", "")),
        (f"a {GUID} that is not a correlation ID", None),
        ("Correlation ID: none", None),
        ("", None),
        (None, None),
        ("Correlation ID: " * 100_000, None),
    ],
)
def test_correlation_id_is_found_only_in_codats_own_envelope(
    message: str | None, expected: str | None
) -> None:
    """Other IDs in the message are not mistaken for the correlation ID."""
    assert correlation_id(message) == expected
