"""No password leaves in a support bundle."""

from __future__ import annotations

import base64
import json
import re
import string
import tarfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_cli.bundle import Bundle, collect, default_name, readme, secret_outline, secret_values, write
from runnerhub_cli.errors import CliError
from runnerhub_cli.kubectl import Kubectl
from runnerhub_cli.redact import MARK, Redactor, is_plain, is_secret_name

BODY = {"metadata": {"name": "hub", "namespace": "runnerhub"}}
# What the operator makes passwords of, and what people may take for one.
PASSWORDS = st.text(string.ascii_letters + string.digits + "._~-", min_size=6, max_size=40)
ANYTHING = st.text(
    st.characters(exclude_characters="<*>", exclude_categories=("Cs",)), min_size=6, max_size=40
)
TEXTS = st.text(max_size=60)


def _spellings(value: str) -> list[str]:
    return [
        value,
        base64.b64encode(value.encode()).decode(),
        urllib.parse.quote(value, safe=""),
        json.dumps(value)[1:-1],
    ]


@given(ANYTHING, TEXTS, TEXTS)
def test_a_value_of_a_secret_is_in_no_text_in_whatever_spelling(value: str, before: str, after: str) -> None:
    for spelling in _spellings(value):
        found = Redactor([value]).text(f"{before}{spelling}{after}")
        if value.strip() and spelling not in f"{before}{MARK}{after}":
            assert spelling not in found


@given(st.lists(PASSWORDS, min_size=1, max_size=5), st.data())
def test_values_that_are_part_of_one_another_leave_nothing(values: list[str], data: st.DataObject) -> None:
    longer = [value + other for value in values for other in values]
    text = " ".join(data.draw(st.permutations([*values, *longer])))
    found = Redactor([*values, *longer]).text(text)
    assert not any(value in found for value in values)


@given(
    st.recursive(ANYTHING, lambda inner: st.lists(inner) | st.dictionaries(ANYTHING, inner), max_leaves=10),
    ANYTHING,
)
def test_a_value_is_in_no_object_wherever_it_stands(around: object, value: str) -> None:
    if not value.strip():
        return
    bundle = Bundle(Redactor([value]))
    bundle.objects(
        "a.yaml", {"deep": [around, {"note": f"it is {value}!"}], value: value, "text": f"x\n{value}\ny"}
    )
    written = bundle.files["a.yaml"].decode()
    assert not any(value in text for text in _strings(yaml.safe_load(written)))


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in [*value.keys(), *value.values()] for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


@given(PASSWORDS)
@pytest.mark.parametrize(
    "form",
    [
        "postgres://app:{}@hub-postgres:5432/github_runnerhub",
        "redis://:{}@hub-redis-0:6379",
        "password={} host=hub-postgres",
        '"superuser-password": "{}"',
        "PGPASSWORD='{}'",
        "GITHUB_TOKEN: {}",
        "jwt_secret={}",
        "requirepass {}",
        "masterauth {}",
        "sentinel auth-pass github-runnerhub-redis {}",
        "ALTER ROLE app PASSWORD '{}'",
        "Authorization: Bearer {}xx",
    ],
)
def test_what_looks_like_a_credential_is_taken_out_without_knowing_it(form: str, value: str) -> None:
    # Around the value nothing may stand that has it by chance.
    if value in form or value in MARK:
        return
    assert value not in Redactor().text(form.format(value))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\nxyz\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy",
    ],
)
def test_keys_and_tokens_are_known_by_their_form(text: str) -> None:
    assert Redactor().text(f"before {text} after") == f"before {MARK} after"


@pytest.mark.parametrize(
    "text",
    [
        "secretName: hub-postgres-credentials",
        "automountServiceAccountToken: false",
        "password_encryption = scram-sha-256",
        "runnerhub.io/credentials-hash: 0123456789abcdef",
        "CREDENTIALS_SECRET=hub-postgres-credentials",
        "DATABASE_PASSWORD_FILE=/etc/runnerhub/credentials/app-password",
        "secret:\n  defaultMode: 288",
        "2026-11-26 09:00:00 LOG: checkpoint complete",
        "http://hub.runnerhub.svc:3001/health",
    ],
)
def test_what_is_no_credential_stays_readable(text: str) -> None:
    assert Redactor().text(text) == text


def test_variables_of_a_container_are_judged_by_their_names() -> None:
    env = [{"name": "DATABASE_PASSWORD", "value": "hunter2"}, {"name": "HA_ENABLED", "value": "true"}]
    assert Redactor().object({"env": env})["env"] == [
        {"name": "DATABASE_PASSWORD", "value": MARK},
        {"name": "HA_ENABLED", "value": "true"},
    ]
    assert is_secret_name("REDIS_PASSWORD")
    assert not is_secret_name("DATABASE_PASSWORD_FILE")


def test_a_short_value_is_taken_out_as_a_word_only() -> None:
    assert Redactor(["hub"]).text("the password is hub, of github") == f"the password is {MARK}, of github"


def test_of_a_file_in_a_secret_no_lines_without_a_letter_are_taken_out() -> None:
    redactor = Redactor(['{\n  "login": "opensesame"\n}\n---\n'])
    assert redactor.text('{"a": {}} ---') == '{"a": {}} ---'
    assert redactor.text('it has "login": "opensesame" in it') == f"it has {MARK} in it"


PUBLIC = frozenset({"builds", "hub", "hub-postgres", "postgres", "svc", "cluster", "local"})
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBabc+/=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("key", "value", "plain"),
    [
        ("host", "hub-postgres", True),
        ("PGHOST", "db.example.test", True),
        ("pgbouncer-port", "5432", True),
        ("username", "runner\n", True),
        ("DB_USER", "app_rw", True),
        ("ca.crt", CERTIFICATE * 2, True),
        ("url", "hub-postgres.builds.svc.cluster.local", True),
        ("anything", "builds", True),
        ("DEBUG", "true", True),
        ("REPLICAS", "3", True),
        # Names that may hold a password whatever stands there.
        ("password", "builds", False),
        ("pw", "hub", False),
        ("auth-user", "runner", False),
        ("license.key", "1", False),
        # Values that look like one under a harmless name.
        ("username", "hunter22", False),
        ("username", "ghp_0123456789abcdefghijABCDEFGHIJ", False),
        ("username", "0a1b2c3d4e5f", False),
        ("user", "someone:opensesame", False),
        ("host", "postgres://app:opensesame@hub-postgres", False),
        ("database", "abcdefghijklmnopqrstuvwx", False),
        ("port", "482915", False),
        ("tls.crt", CERTIFICATE + "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", False),
        ("ca.crt", "opensesame", False),
        # Nothing is known of them.
        ("value", "opensesame", False),
        ("url", "hub-postgres.opensesame", False),
    ],
)
def test_a_value_of_a_secret_is_plain_only_when_name_and_value_are(key: str, value: str, plain: bool) -> None:
    assert is_plain(key, value, PUBLIC) is plain


@dataclass(frozen=True)
class _Namespace(Kubectl):
    """A kubectl that knows a namespace's objects."""

    objects: Mapping[str, list[dict]] = field(default_factory=dict)

    def items(self, kind: str, **_: object) -> list[dict]:
        return self.objects.get(kind, [])

    def json(self, *_words: str, **_: object) -> dict:
        return {"items": []}

    def text(self, *_words: str, **_: object) -> str:
        return "namespace builds pod hub-postgres-0 rebuilds on port 5432, runner gave opensesame\n"


def _secret(name: str, **values: str) -> dict:
    data = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": name}, "data": data}


def _collected(*secrets: dict) -> tuple[str, str]:
    """The log of a pod and README.txt in a bundle where these Secrets are."""
    pod = {"metadata": {"name": "hub-postgres-0"}, "spec": {"containers": [{"name": "postgres"}]}}
    body = {"metadata": {"name": "hub", "namespace": "builds"}}
    namespace = _Namespace(objects={"secrets": list(secrets), "pods": [pod]})
    bundle = collect(namespace, body, {}, lambda _: None)
    told = readme(bundle, body, datetime(2026, 11, 26, tzinfo=UTC))
    return bundle.files["logs/hub-postgres-0/postgres.log"].decode(), told


APP = _secret("app", host="hub-postgres", username="runner", port="5432", password="opensesame")
TOKEN = _secret("account-token", namespace="builds", token="eyJhbGciOi", ca_crt=CERTIFICATE)


def test_names_and_addresses_in_secrets_stay_readable_and_are_told() -> None:
    log, told = _collected(APP, TOKEN)
    assert log == f"namespace builds pod hub-postgres-0 rebuilds on port 5432, runner gave {MARK}\n"
    left = told.partition("Left in")[2]
    assert left.splitlines()[2:7] == [
        "account-token/ca.crt",
        "account-token/namespace",
        "app/host",
        "app/port",
        "app/username",
    ]
    assert "app/password" not in told


@pytest.mark.parametrize("written", ["runner", "runner\n", "a file\nrunner\n"])
def test_a_password_is_taken_out_also_where_it_is_a_name_in_another_secret(written: str) -> None:
    log, told = _collected(APP, _secret("other", password=written))
    assert f", {MARK} gave {MARK}" in log
    assert "app/host" in told
    assert "app/username" not in told


@given(PASSWORDS)
def test_no_password_is_left_in_for_what_else_it_is(value: str) -> None:
    secrets = [
        _secret("a", username=value, host=value),
        _secret("b", password=value),
        _secret("c", database=value),
    ]
    hidden, _ = secret_values(secrets, frozenset({value}))
    assert value not in Redactor(hidden).text(f"x{value}x {value}")


def test_the_archive_has_names_and_lengths_of_secrets_and_none_of_their_values(tmp_path: Path) -> None:
    values = {"password": "s3cret-Value_1", "binary": None, "sentinel-password": "0ther~Value.2"}
    data = {
        key: base64.b64encode(b"\xff\xfe\x00" if value is None else value.encode()).decode()
        for key, value in values.items()
    }
    secret = {"metadata": {"name": "hub-redis-credentials", "labels": {}}, "type": "Opaque", "data": data}
    bundle = Bundle(Redactor(secret_values([secret])[0]))
    bundle.objects("secrets.yaml", secret_outline([secret]))
    bundle.objects("pods.yaml", [{"metadata": {"name": "p"}, "status": {"message": "it was s3cret-Value_1"}}])
    bundle.text("logs/redis.log", f"auth {values['sentinel-password']} and {data['password']}\n")
    bundle.lacks("events.yaml", "no permission for 0ther~Value.2")
    path = tmp_path / "bundle.tar.gz"
    write(bundle, path, BODY, datetime(2026, 11, 26, tzinfo=UTC))
    with tarfile.open(path) as archive:
        read = {member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()}
    assert set(read) == {
        f"runnerhub-runnerhub-hub/{name}"
        for name in ("README.txt", "logs/redis.log", "pods.yaml", "secrets.yaml")
    }
    everything = "".join(read.values())
    for value in (*(value for value in values.values() if value), *data.values()):
        assert value not in everything
    outline = yaml.safe_load(read["runnerhub-runnerhub-hub/secrets.yaml"])
    assert outline[0]["valueLengths"] == {"password": 14, "binary": 3, "sentinel-password": 13}
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_archive_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / default_name(BODY, datetime(2026, 11, 26, 9, 0, tzinfo=UTC))
    assert re.fullmatch(r"runnerhub-runnerhub-hub-20261126T090000Z\.tar\.gz", path.name)
    path.write_text("precious")
    with pytest.raises(CliError, match="cannot be written"):
        write(Bundle(Redactor()), path, BODY, datetime.now(UTC))
    assert path.read_text() == "precious"
