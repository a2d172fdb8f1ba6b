"""Settings: where they come from, what stops a start, and that documents tell the truth."""

import re
from pathlib import Path

import pytest

from app import settings as settings_module
from app.bootstrap import check_settings
from app.errors import SettingsError
from app.settings import Settings, load_settings, require
from app.worker.tasks.reclassify import team_rules
from tests import processes

ROOT = Path(__file__).parents[1]
SECRET = "whsec_" + "A" * 32
NAMES = {name.upper() for name in Settings.model_fields}
COMPLETE = {
    "CODAT_WEBHOOK_SECRETS": SECRET,
    "CODAT_API_KEY": "codat-canary-key",
    "API_KEYS": "our-own-canary-key-1",
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without `.env`, and an environment without our settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings_module, "SECRETS_DIR", tmp_path / "secrets")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def given(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_lists_are_split_at_commas_and_empty_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blanks around the parts are nobody's wish."""
    found = given(monkeypatch, CODAT_WEBHOOK_SECRETS=f" {SECRET} ,, whsec_b", PORT="", API_KEYS="")
    assert [s.get_secret_value() for s in found.codat_webhook_secrets] == [SECRET, "whsec_b"]
    assert (found.port, found.api_keys) == (8000, ())


def test_the_environment_beats_the_file_and_the_file_beats_the_secrets(
    monkeypatch: pytest.MonkeyPatch, nowhere: Path
) -> None:
    """Three places, one order."""
    (nowhere / "secrets").mkdir()
    for name, value in (("port", "1"), ("host", "secret"), ("CODAT_API_KEY", "from-a-file\n")):
        (nowhere / "secrets" / name).write_text(value)
    (nowhere / ".env").write_text("PORT=2\nHOST=dotenv\n")
    found = given(monkeypatch, PORT="3")
    assert (found.port, found.host) == (3, "dotenv")
    assert found.codat_api_key
    assert found.codat_api_key.get_secret_value() == "from-a-file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "canary"), ("PORT", "70000"), ("API_KEYS", "canary"), ("LOG_LEVEL", "canary"),
        ("DATABASE_URL", "mysql://user:canary@host/x"), ("DATABASE_URL", "canary"),
        ("DATABASE_URL", "sqlite:///:memory:"), ("DATABASE_URL", "sqlite:///?canary=1"),
        ("DATABASE_URL", "sqlite:///file:canary?mode=memory&uri=true"),
        ("DATABASE_URL", "sqlite+aiosqlite:///canary.db"), ("STUCK_AFTER_MINUTES", "9" * 9),
        ("RECONCILE_EVERY_MINUTES", "9" * 9),
        ("CODAT_BASE_URL", "canary"), ("MAX_BODY_BYTES", "-1"), ("FETCH_MAX_ATTEMPTS", "0"),
        ("WORKER_IN_WEB", "canary"), ("NOTIFY_WEBHOOK_URLS", "https://a.example, ftp://canary"),
        ("NOTIFY_WEBHOOK_URLS", "https://"), ("RETRY_WEBHOOK_URL", "canary"),
        ("RETRY_WEBHOOK_URL", "https://canary:port/"), ("NOTIFY_SIGNING_SECRET", "canary"),
        ("NOTIFY_SIGNING_SECRET", "whsec_canary"), ("NOTIFY_URLS", "canary"),
        ("CODAT_BASE_URL", "https://"), ("CODAT_BASE_URL", "https://canary:port"),
        ("CODAT_BASE_URL", "https://me:canary@host"), ("CODAT_BASE_URL", "http://[canary"),
        ("CODAT_API_KEY", "can\nary canary"), ("CODAT_API_KEY", "canar\u00fd"),
        ("CODAT_API_KEY", "Bearer canary"), ("CODAT_API_KEY", "Basic canary!!"),
        ("HOST", "canary..host"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_that_names_the_setting_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What a start prints may end up anywhere."""
    with pytest.raises(SettingsError) as caught:
        given(monkeypatch, **{name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["NOTIFY_WEBHOOK_URLS", "RETRY_WEBHOOK_URL"])
def test_nothing_goes_out_unsigned(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An address without a secret stops the start."""
    monkeypatch.setenv(name, "https://receiver.example/codat")
    with pytest.raises(SettingsError, match=r"^NOTIFY_SIGNING_SECRET: is not set, but") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    found = given(monkeypatch, NOTIFY_SIGNING_SECRET=SECRET)
    assert found.notify_signing_secret


def test_addresses_may_hold_commas_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apprise's do: only a comma before another address parts them."""
    found = given(
        monkeypatch, NOTIFY_URLS="mailto://u:p@host?to=a@x,b@x, slack://T/B/C/#one,json://h\n"
    )
    assert [each.get_secret_value() for each in found.notify_urls] == [
        "mailto://u:p@host?to=a@x,b@x",
        "slack://T/B/C/#one",
        "json://h",
    ]


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_missing_setting_without_default_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """By name."""
    rest = {name: value for name, value in COMPLETE.items() if name != missing}
    found = given(monkeypatch, **rest)
    with pytest.raises(SettingsError, match=missing):
        check_settings(found)


def test_no_secret_is_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are printed by debuggers and error trackers."""
    found = given(monkeypatch, DATABASE_URL="postgresql://u:pw-canary@h/x", **COMPLETE)
    assert "canary" not in repr(found)
    assert SECRET not in repr(found)
    require(found, "api_keys")


def test_both_log_forms_are_understood_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """INFO is what many are used to."""
    found = given(monkeypatch, LOG_LEVEL="INFO", LOG_FORMAT="Json")
    assert (found.log_level, found.log_format) == ("info", "json")


def documented(row: str, text: str) -> dict[str, str]:
    return dict(re.findall(row, text, re.MULTILINE))


def test_readme_and_example_list_exactly_the_settings_there_are() -> None:
    """With their defaults."""
    table = documented(r"^\| `([A-Z_]+)` \| ([^|]+?) \|", (ROOT / "README.md").read_text())
    example = documented(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text())
    assert set(table) == NAMES
    assert set(example) == NAMES
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, str | int) and default != "":
            said = str(default).lower() if isinstance(default, bool) else str(default)
            assert table[name.upper()] == f"`{said}`"
            assert example[name.upper()] == said


def test_readme_names_every_verb_and_the_two_commands() -> None:
    """A verb that is not in the README does not exist for a user."""
    from app.__main__ import cli

    readme = (ROOT / "README.md").read_text()
    verbs = {c.callback.__name__ for c in cli.registered_commands if c.callback}
    assert {verb for verb in verbs if f"`{verb}" not in readme} == set()
    assert "make demo" in readme
    assert "make test" in readme


def test_links_in_the_documents_lead_somewhere() -> None:
    """Relative ones, in every document."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readmes_own_rules_can_be_used_as_they_stand(tmp_path: Path) -> None:
    """People copy examples."""
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "causes.toml"
    file.write_text(example)
    rules = team_rules(file)
    said = {
        "The ledger is sealed": "period_closed",
        "Cost center 7 is unknown.": "cost_centre_unknown",
    }
    for message, cause in said.items():
        assert rules.of_transaction(message, status="PushError") == cause


def test_a_wrong_causes_file_stops_serve_and_worker(nowhere: Path) -> None:
    """With one line and exit code 1, before anything is opened."""
    (nowhere / "own.toml").write_text("[[rule]]\ncause = 'nobody'\nmessage = 'x'\n")
    for verb in ("serve", "worker"):
        done = processes.run(nowhere, verb, CAUSES_FILE="own.toml")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "error: CAUSES_FILE: rule 1 (nobody): there is no such cause"
        )
        assert "Traceback" not in done.stderr
