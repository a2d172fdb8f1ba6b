"""Settings: their sources, the values that stop a start, and their documentation."""

import re
from pathlib import Path

import pytest

from app import settings as settings_module
from app.errors import SettingsError
from app.settings import Settings, load_settings, require, setting_names

ROOT = Path(__file__).parents[1]
SECRET = "whsec_" + "A" * 32
NAMES = {name.upper() for name in Settings.model_fields}
REQUIRED = {
    "CODAT_WEBHOOK_SECRETS": SECRET,
    "CODAT_API_KEY": "codat-canary-key",
    "API_KEYS": "our-own-canary-key-1",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory without `.env`, and an environment without our settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings_module, "SECRETS_DIR", tmp_path / "secrets")
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_lists_are_split_at_commas_and_empty_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load(
        monkeypatch, CODAT_WEBHOOK_SECRETS=f" {SECRET} ,, whsec_b", PORT="", API_KEYS=""
    )
    secrets = [secret.get_secret_value() for secret in settings.codat_webhook_secrets]
    assert secrets == [SECRET, "whsec_b"]
    assert (settings.port, settings.api_keys) == (8000, ())


def test_one_error_names_all_that_is_wrong_and_all_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody has to start the service once per mistake."""
    wrong = {"PORT": "canary", "API_KEYS": "canary", "NOTIFY_SIGNING_SECRET": "canary"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(required=settings_module.REQUIRED)
    assert setting_names(caught.value.problems) == {
        "port", "api_keys", "notify_signing_secret", "codat_webhook_secrets", "codat_api_key",
    }  # fmt: skip
    assert caught.value.problems[-1] == (
        "Missing settings: CODAT_WEBHOOK_SECRETS, CODAT_API_KEY. See .env.example."
    )
    assert "\n" not in str(caught.value)


def test_a_key_may_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys may share one, while the old one is replaced; colons of the key belong to it."""
    keys = "support:a-key-of-support-1, support: a-key-of-support-2 ,plain-key-as-before"
    keys += ",x.Y-z_9:a:b:c-of-our-own-1"
    found = [
        (key.name, key.key.get_secret_value()) for key in load(monkeypatch, API_KEYS=keys).api_keys
    ]
    assert found == [
        ("support", "a-key-of-support-1"), ("support", "a-key-of-support-2"),
        (None, "plain-key-as-before"), ("x.Y-z_9", "a:b:c-of-our-own-1"),
    ]  # fmt: skip


def test_the_environment_wins_over_dotenv_and_dotenv_over_secret_files(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "secrets").mkdir()
    for name, value in (("port", "1"), ("host", "secret"), ("CODAT_API_KEY", "from-a-file\n")):
        (folder / "secrets" / name).write_text(value)
    (folder / ".env").write_text("PORT=2\nHOST=dotenv\n")
    settings = load(monkeypatch, PORT="3")
    assert (settings.port, settings.host) == (3, "dotenv")
    assert settings.codat_api_key
    assert settings.codat_api_key.get_secret_value() == "from-a-file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"), ("API_KEYS", "canary"), ("MAX_UNVERIFIED_BODY_BYTES", "1048575"),
        ("DATABASE_URL", "mysql://user:canary@host/x"), ("DATABASE_URL", "canary"),
        ("DATABASE_URL", "sqlite:///:memory:"), ("DATABASE_URL", "sqlite:///?canary=1"),
        ("DATABASE_URL", "sqlite:///file:canary?mode=memory&uri=true"),
        ("DATABASE_URL", "sqlite+aiosqlite:///canary.db"), ("STUCK_AFTER_MINUTES", "9" * 9),
        ("RECONCILE_EVERY_MINUTES", "9" * 9), ("KEEP_EVENTS_DAYS", "-1"),
        ("KEEP_CHANGES_DAYS", "36501"),
        ("CODAT_BASE_URL", "canary"), ("MAX_BODY_BYTES", "-1"), ("FETCH_MAX_ATTEMPTS", "0"),
        ("NOTIFY_WEBHOOK_URLS", "https://a.example, ftp://canary"),
        ("NOTIFY_WEBHOOK_URLS", "https://"), ("RETRY_WEBHOOK_URL", "canary"),
        ("RETRY_WEBHOOK_URL", "https://canary:port/"), ("NOTIFY_SIGNING_SECRET", "canary"),
        ("NOTIFY_SIGNING_SECRET", "whsec_canary"), ("NOTIFY_URLS", "canary"),
        ("CODAT_BASE_URL", "https://"), ("CODAT_BASE_URL", "https://canary:port"),
        ("CODAT_BASE_URL", "https://me:canary@host"), ("CODAT_BASE_URL", "http://[canary"),
        ("CODAT_API_KEY", "can\nary canary"), ("CODAT_API_KEY", "canar\u00fd"),
        ("DATABASE_URL", "postgresql+canary://u@h/x"), ("API_KEYS", "a-key-of-our-own-1,canary"),
        ("API_KEYS", "me:canary"), ("API_KEYS", "no spaces:canary-of-enough-length"),
        ("API_KEYS", ":canary-of-enough-length"), ("API_KEYS", "a/b:canary-of-enough-length"),
        ("API_KEYS", "n" * 33 + ":canary-of-enough-length"),
        ("API_KEYS", "a:canary-of-enough-length,b:canary-of-enough-length"),
        ("API_KEYS", "canary-of-enough-length,b:canary-of-enough-length"),
        ("CODAT_API_KEY", "Bearer canary"), ("CODAT_API_KEY", "Basic canary!!"),
        ("DATABASE_URL", "jdbc:postgresql://u:canary@h/x"), ("DATABASE_URL", "canary = host"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_that_names_the_setting_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{name: value})
    problem = caught.value.problems[0]
    assert problem.startswith(f"{name} ")
    assert name.lower() in setting_names([problem])
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PORT", "0", "PORT must be a number from 1 to 65535, not 0."),
        ("PORT", "tcp://10.0.0.1:80",  # a Kubernetes service or a Docker link of that name
         "PORT must be a number from 1 to 65535, not tcp://10.0.0.1:80."),
        ("MAX_BODY_BYTES", "1", "MAX_BODY_BYTES must be a number of at least 1024, not 1."),
        ("WORKER_IN_WEB", "maybe", "WORKER_IN_WEB must be true or false, not maybe."),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be json or console, not xml."),
        ("LOG_LEVEL", "chatty",
         "LOG_LEVEL must be debug, info, warning or error, not chatty."),
        ("LOG_LEVEL", "a\nb", r"LOG_LEVEL must be debug, info, warning or error, not 'a\nb'."),
        ("LOG_LEVEL", "\udcff",
         r"LOG_LEVEL must be text, not '\udcff'."),
        ("HOST", "http://0.0.0.0",
         "HOST must be an IP address or a host name, not http://0.0.0.0."),
        ("HOST", "a..b", "HOST must be an IP address or a host name, not a..b."),
    ],
)  # fmt: skip
def test_the_line_says_which_values_are_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **{name: value})
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["NOTIFY_WEBHOOK_URLS", "RETRY_WEBHOOK_URL"])
def test_a_receiver_of_webhooks_needs_a_signing_secret(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "https://receiver.example/codat")
    with pytest.raises(SettingsError, match=r"^NOTIFY_SIGNING_SECRET is required when .*\.$"):
        load_settings()
    assert load(monkeypatch, NOTIFY_SIGNING_SECRET=SECRET).notify_signing_secret


def test_apprise_addresses_may_contain_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch, NOTIFY_URLS="mailto://u:p@host?to=a@x,b@x, slack://T/B/C/#one,json://h\n"
    )
    assert [url.get_secret_value() for url in settings.notify_urls] == [
        "mailto://u:p@host?to=a@x,b@x",
        "slack://T/B/C/#one",
        "json://h",
    ]


@pytest.mark.parametrize(
    ("public_url", "root_path", "expected"),
    [
        ("", "", ""),
        ("https://h.example/", "", ""),
        ("https://h.example", "codat-sync/", "/codat-sync"),
        ("https://h.example/a/b/", "", "/a/b"),
        ("https://h.example:8443/a", "/a/", "/a"),
        ("", "/", ""),
    ],
)
def test_the_root_path_is_that_of_the_public_url(
    monkeypatch: pytest.MonkeyPatch, public_url: str, root_path: str, expected: str
) -> None:
    settings = load(monkeypatch, PUBLIC_URL=public_url, ROOT_PATH=root_path)
    assert settings.root_path == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "sync.example.com"),
        ("PUBLIC_URL", "https://sync.example.com/webhooks/codat"),
        ("PUBLIC_URL", "https://sync.example.com/?x=1"),
        ("ROOT_PATH", "https://sync.example.com/a"),
        ("ROOT_PATH", "/a b"),
        ("ROOT_PATH", "/a/../b"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/8 127.0.0.1"),
        ("FORWARDED_ALLOW_IPS", "172.17.0.1/16"),
        ("KEEP_ALIVE_SECONDS", "0"),
    ],
)
def test_settings_of_a_proxy_are_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{name} must be [^\n]*$"):
        load(monkeypatch, **{name: value})


def test_a_root_path_that_differs_from_the_public_url_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        SettingsError, match=r"^ROOT_PATH must be the path of PUBLIC_URL, not /b\.$"
    ):
        load(monkeypatch, PUBLIC_URL="https://h.example/a", ROOT_PATH="/b")


def test_all_missing_settings_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, CODAT_API_KEY="key")
    with pytest.raises(SettingsError) as caught:
        require(settings, "codat_webhook_secrets", "codat_api_key", "api_keys")
    assert str(caught.value) == (
        "Missing settings: CODAT_WEBHOOK_SECRETS, API_KEYS. See .env.example."
    )


def test_no_secret_is_in_a_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, DATABASE_URL="postgresql://u:pw-canary@h/x", **REQUIRED)
    assert "canary" not in repr(settings)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("INFO", "info"), ("Warning", "warning"), ("WARN", "warning"), ("20", "info"),
        ("30", "warning"), ("trace", "debug"), ("FATAL", "error"), ("Critical", "error"),
        ("notice", "info"), ("verbose", "debug"), ("10", "debug"), (" error ", "error"),
    ],
)  # fmt: skip
def test_log_levels_are_understood_as_others_write_them(
    monkeypatch: pytest.MonkeyPatch, value: str, level: str
) -> None:
    settings = load(monkeypatch, LOG_LEVEL=value, LOG_FORMAT="Json")
    assert (settings.log_level, settings.log_format) == (level, "json")


def test_quotes_and_blanks_around_values_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --env-file` keeps them, and the carriage return of a file from Windows."""
    settings = load(
        monkeypatch,
        CODAT_API_KEY='"codat-key"',
        API_KEYS="'one-key-of-enough-length,other-key-of-enough-length'\r",
        PORT=" '9000' ",
        LOG_LEVEL='""',
        KEEP_EVENTS_DAYS="  ",
        CODAT_WEBHOOK_SECRETS=f"'{SECRET}','whsec_b'",
    )
    assert settings.codat_api_key
    assert settings.codat_api_key.get_secret_value() == "codat-key"
    assert [len(key.key.get_secret_value()) for key in settings.api_keys] == [24, 26]
    assert (settings.port, settings.log_level, settings.keep_events_days) == (9000, "info", 30)
    assert [secret.get_secret_value() for secret in settings.codat_webhook_secrets] == [
        SECRET,
        "whsec_b",
    ]


@pytest.mark.parametrize("host", ["::", "[::]", "0.0.0.0", "localhost", "x86_64-linux-gnu"])
def test_hosts(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, HOST=host).host == host.strip("[]")


@pytest.mark.parametrize("source", ["environment", "dotenv"])
def test_the_folder_of_secret_files_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: str
) -> None:
    """As Kubernetes mounts a Secret: links to files in a folder of a version."""
    mounted = folder / "mounted"
    version = mounted / "..2026"
    version.mkdir(parents=True)
    (version / "CODAT_API_KEY").write_bytes("\ufeffcodat-key\r\n".encode())
    (version / "CODAT_WEBHOOK_SECRETS").write_text(f"{SECRET}\nwhsec_b\n")
    (mounted / "..data").symlink_to(version)
    (mounted / "kubernetes.io").mkdir()
    for name in ("CODAT_API_KEY", "CODAT_WEBHOOK_SECRETS"):
        (mounted / name).symlink_to(mounted / "..data" / name)
    if source == "environment":
        monkeypatch.setenv("SECRETS_DIR", str(mounted))
    else:
        (folder / ".env").write_text(f"SECRETS_DIR={mounted}\n")
    settings = load_settings()
    assert settings.codat_api_key
    assert settings.codat_api_key.get_secret_value() == "codat-key"
    assert len(settings.codat_webhook_secrets) == 2


def test_a_file_that_cannot_be_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Also a folder, which Docker makes where a file to mount does not exist."""
    secrets = folder / "secrets"
    (secrets / "codat_api_key").mkdir(parents=True)
    (secrets / "host").symlink_to("nowhere")
    (secrets / "api_keys").write_bytes(b"canary\xff\xfe")
    for name, text in (
        ("CODAT_API_KEY", "cannot be read: Is a directory"),
        ("HOST", "cannot be read: No such file or directory"),
        ("API_KEYS", "must be UTF-8 text"),
    ):
        file = secrets / name.lower()
        with pytest.raises(SettingsError) as caught:
            load_settings(**{f.name: "set" for f in secrets.iterdir() if f != file})
        assert str(caught.value) == f"{name}: the file {file} {text}."
    monkeypatch.setenv("SECRETS_DIR", str(folder / "nowhere"))
    with pytest.raises(SettingsError) as caught:
        load_settings()
    where = f"SECRETS_DIR {folder / 'nowhere'}"
    assert str(caught.value) == f"{where} cannot be read: No such file or directory."


def test_a_dotenv_file_from_windows_is_read(folder: Path) -> None:
    (folder / ".env").write_bytes("\ufeffPORT=2\r\nHOST='::1'\r\n".encode())
    settings = load_settings()
    assert (settings.port, settings.host) == (2, "::1")


def test_a_dotenv_file_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / ".env").write_bytes("PORT=2".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"^\.env must be UTF-8 text\.$"):
        load_settings()
    (folder / ".env").unlink()
    (folder / ".env").mkdir()
    with pytest.raises(SettingsError, match=r"\.env is a folder, not a file\.$"):
        require(load_settings(), "api_keys")


def test_the_example_and_the_docs_list_every_setting_with_its_default() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(document.read_text() for document in documents)
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+?) \|", text, re.MULTILINE))
    example_text = (ROOT / ".env.example").read_text()
    example = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example_text, re.MULTILINE))
    assert set(table) == NAMES
    assert set(example) == NAMES
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, str | int) and field.default != "":
            is_flag = isinstance(field.default, bool)
            default = str(field.default).lower() if is_flag else str(field.default)
            assert (table[name.upper()], example[name.upper()]) == (f"`{default}`", default)
