"""What a person does with the pages, for tests: sign in, fill in forms."""

import re

from fastapi.testclient import TestClient

from tests.web.shelf import KEY


def enter(person: TestClient) -> None:
    """Sign in with a key."""
    answer = person.post("/sign-in", data={"key": KEY}, follow_redirects=False)
    assert answer.status_code == 303, answer.text


def form_token(person: TestClient, path: str = "/") -> str:
    """What this person's forms carry."""
    found = re.search(r'name="csrf" value="(\w+)"', person.get(path).text)
    assert found
    return found[1]
