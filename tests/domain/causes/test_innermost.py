"""The innermost message: its text and codes are found in whatever surrounds them."""

import html
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.causes.fingerprint import fingerprint
from app.domain.causes.innermost import MAX_PAGE_LENGTH, innermost_text, unwrap

GUID = "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"
INACTIVE = "Invalid Reference Id : Something you're trying to use has been made inactive."


def qbo_fault(detail: str, *, code: str = "2500", title: str = "Invalid Reference Id") -> str:
    error = {"Message": title, "Detail": detail, "code": code, "element": ""}
    return json.dumps({"Fault": {"Error": [error], "type": "ValidationFault"}, "time": GUID})


def qbo_fault_xml(detail: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><IntuitResponse time="2018-01-08">'
        '<Fault type="ValidationFault"><Error code="2500" element=""><Message>Invalid Reference Id'
        f"</Message><Detail>{html.escape(detail)}</Detail></Error></Fault></IntuitResponse>"
    )


def codat(message: str) -> str:
    return f"An error occurred in a downstream service. Correlation ID: {GUID}. Message:  {message}"


@pytest.mark.parametrize(
    ("message", "text", "codes"),
    [
        # QuickBooks
        (qbo_fault(INACTIVE), INACTIVE, "qbo 2500"),
        (qbo_fault_xml(INACTIVE), INACTIVE, "qbo 2500"),
        ('{"fault":{"error":[{"message":"Oops","detail":null,"code":"3001"}]}}', "Oops",
         "qbo 3001"),
        (
            '<QBXML><BillAddRs statusCode="3140" statusMessage="No &quot;A&quot; -> B"/></QBXML>',
            'No "A" -> B', "qbxml 3140",
        ),
        # Xero: the messages of the elements, not the description of a line
        (
            '{"ErrorNumber":10,"Type":"ValidationException","Message":"A validation exception '
            'occurred","Elements":[{"LineItems":[{"Description":"Fence","AccountCode":"200"}],'
            '"ValidationErrors":[{"Message":"Account must be valid."},{"Message":"Tax rate must be '
            'valid."}]}]}',
            "Account must be valid. Tax rate must be valid.", "",
        ),
        # NetSuite, by SOAP and by REST
        (
            '<status isSuccess="false"><statusDetail type="ERROR"><code>RCRD_DSNT_EXIST</code>'
            "<message>That record does not exist.</message></statusDetail></status>",
            "That record does not exist.", "RCRD_DSNT_EXIST",
        ),
        (
            '{"title":"Bad Request","status":400,"o:errorDetails":[{"detail":"Please enter '
            'value(s) for: Tax Code","o:errorCode":"USER_ERROR"}]}',
            "Please enter value(s) for: Tax Code", "http 400 USER_ERROR",
        ),
        # Sage Intacct
        (
            "<errormessage><error><errorno>BL03000018</errorno><description></description>"
            "<description2>Missing unit</description2><correction>Supply the unit.</correction>"
            "</error></errormessage>",
            "Missing unit. Supply the unit.", "BL03000018",
        ),
        # Sage Accounting: JSON in a string of JSON
        (
            json.dumps({"error_message": '[{"$dataCode":"RecordNotFound","$message":"No item"}]'}),
            "No item", "RecordNotFound",
        ),
        # Business Central, Exact Online, Zoho Books, FreshBooks, MYOB, Codat
        ('{"error":{"code":"Internal_DataNotFound","message":"None."}}', "None.",
         "Internal_DataNotFound"),
        ('{"error":{"code":"","message":{"lang":"","value":"Verplicht: Code"}}}',
         "Verplicht: Code", ""),
        ('{"code":1002,"message":"Invoice does not exist."}', "Invoice does not exist.",
         "zoho 1002"),
        ('{"response":{"errors":[{"errno":1012,"field":"userid","message":"No client."}]}}',
         "No client.", "freshbooks 1012"),
        (
            '{"Errors":[{"Name":"ValidationError","Message":"JournalLine_InvalidAccount",'
            '"AdditionalDetails":"","ErrorCode":31002,"Severity":"Error"}]}',
            "JournalLine_InvalidAccount", "ValidationError myob 31002",
        ),
        (
            '{"statusCode":400,"service":"PushAPI","error":"Validation failed","validation":'
            '{"errors":[{"message":"Currency must not be empty."}],"warnings":[]}}',
            "Currency must not be empty.", "http 400",
        ),
        # Frameworks
        ('{"errors":{"contact":["can\'t be blank"],"dated_on":["is invalid"]}}',
         "contact can't be blank. dated_on is invalid", ""),
        ('{"error":"invalid_grant","error_description":"Token revoked"}', "Token revoked",
         "invalid_grant"),
        ("<html><head><title>503 Unavailable</title><style>a{}</style></head><body><h1>"
         "503 Unavailable</h1></body></html>", "503 Unavailable", ""),
        # Around and inside text
        (codat("Periods are closed"), "Periods are closed", ""),
        (codat(f"Error 400: {qbo_fault(INACTIVE)}"), INACTIVE, "qbo 2500"),
        (f"Response with body: [{qbo_fault_xml(INACTIVE)}].", INACTIVE, "qbo 2500"),
        (qbo_fault(INACTIVE).replace('"', '\\"'), INACTIVE, "qbo 2500"),
        (qbo_fault(INACTIVE)[:-60], INACTIVE, ""),  # cut off
        ("Error for &quot;Acme &amp; Co&quot;", 'Error for "Acme & Co"', ""),
        ("oauth_problem=rate%20limit%20exceeded", "oauth_problem=rate limit exceeded", ""),
        ("Please enter: <b>Tax Code</b>", "Please enter: Tax Code", ""),
        # What only looks like a body
        ("Onderwerp [GLTransactions] Code", "Onderwerp [GLTransactions] Code", ""),
        ("Value <Acme & Co> for {0} is a < b", "Value <Acme & Co> for {0} is a < b", ""),
        ('{"a": 1}', '{"a": 1}', ""),
        ("&amp;quot;", "&quot;", ""),
        (codat(""), codat(""), ""),
        ("", "", ""),
    ],
)  # fmt: skip
def test_text_and_codes(message: str, text: str, codes: str) -> None:
    """Bodies as the platforms document them, in Codat's envelope, escaped, and cut off."""
    found = unwrap(message)
    assert found.text == text
    assert " ".join(found.codes) == codes


def test_different_faults_have_different_fingerprints_whatever_surrounds_them() -> None:
    """One failure is one group as text, JSON, XML, or escaped, and with another request ID."""
    faults = (
        INACTIVE,
        "Business Validation Error: Make sure all your transactions have a GST/HST rate.",
        "Duplicate Document Number Error : You must specify a different number.",
    )
    assert len({fingerprint(qbo_fault(fault)) for fault in faults}) == len(faults)
    for fault in faults:
        variants = (
            fault, codat(fault), qbo_fault(fault), qbo_fault_xml(fault), html.escape(fault),
            codat(qbo_fault(fault)), json.dumps({"error": {"message": fault}}),
            qbo_fault(fault).replace(GUID, "another time"),
        )  # fmt: skip
        assert len({fingerprint(variant) for variant in variants}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Supplier Harbour Coffee Ltd is inactive", "Supplier Bank of Fife is inactive"),
        ("Oops. Request ID: abcdefgh-ij", "Oops. Request ID: klmnop"),
        ("Oops (requestId=abcdefgh)", "Oops (requestId=zyxwvut)"),
        ("Oops. CorrelationId:  e7b4742ffac6427c8ffc68339c16c34c", f"Oops. CorrelationId: {GUID}"),
        ("Bad tax. [Support ID: Y@whFEB036~Yz]", "Bad tax. [Support ID: R8nHGEB032~Zz-W]"),
        ("No &quot;Acme&quot;", "No 'Zenith'"),
        ("No \\\"Acme\\\"", 'No "Zenith"'),
        ("<p>No &#39;Acme&#39;</p>", "No “Zenith Ltd”"),
    ],
)  # fmt: skip
def test_names_request_ids_and_encodings_do_not_split_a_group(one: str, other: str) -> None:
    """Whether or not a name is quoted."""
    assert fingerprint(one) == fingerprint(other)


def test_field_names_are_not_masked_like_names() -> None:
    """They tell failures apart."""
    assert fingerprint("Account Code is invalid") != fingerprint("Account Type is invalid")
    assert fingerprint("Customer Name is required") != fingerprint("Customer Email is required")


def test_page_of_markup_is_shown_shortened() -> None:
    """Nobody wants to read a whole page."""
    page = f"<html><body>{'<p>words and words</p>' * 500}</body></html>"
    assert innermost_text(f"<html><body>{'<p>a</p>' * 5}</body></html>") == "a"
    assert len(innermost_text(page.replace("</p>", f"{GUID}</p>"))) <= MAX_PAGE_LENGTH


@given(st.text())
def test_any_text_can_be_unwrapped(text: str) -> None:
    """Messages from Codat can contain any text."""
    assert isinstance(innermost_text(text), str)
    assert bool(innermost_text(text)) == bool(text)


@pytest.mark.parametrize(
    "part",
    ["{", "[", "[{", '{"a":', '\\"', '"message":"', "&amp;", "<a", "<a>", "<a/>", "</a>", "<!--",
     "<![CDATA[", "<", "</a <", "correlation id: ", '{"message":', "<a b='", "%20"],
)  # fmt: skip
def test_time_is_bounded(part: str) -> None:
    """Unfinished and deeply nested bodies."""
    hostile = part * (200_000 // len(part))
    start = time.thread_time()
    unwrap(hostile)
    assert time.thread_time() - start < 0.5
