"""The vault: what is sealed opens with its key at its place alone, and no state of the keys ends the daemon."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connectors.sdk.secret import Secret
from daemon import vault as module
from daemon.settings import Settings, load, masked
from daemon.vault import Sealed, Vault, VaultError

CLEAR = "correct horse battery staple"


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def opened(folder: Path, **vault) -> Vault:
    return Vault.open(folder, Settings(data_dir=folder, vault=vault))


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)


def test_a_key_is_made_on_the_first_start_private_and_said_so(tmp_path):
    with capture_logs() as logs:
        first = opened(tmp_path)
    sealed = first.seal(Secret(CLEAR), "auth/1/password")
    with capture_logs() as later:
        second = opened(tmp_path)

    assert CLEAR == second.unseal(sealed, "auth/1/password").reveal()
    assert 0o600 == (tmp_path / "vault.key").stat().st_mode & 0o777
    assert [("vault_key_made", str(tmp_path / "vault.key"))] == [
        (each["event"], each["path"]) for each in logs if "path" in each
    ]
    assert ["vault_opened"] == [each["event"] for each in later]


def test_the_key_and_the_secret_are_in_no_repr_and_no_log(tmp_path):
    with capture_logs() as logs:
        vault = opened(tmp_path)
    key = next(line for line in (tmp_path / "vault.key").read_text().splitlines() if not line.startswith("#"))
    sealed = vault.seal(Secret(CLEAR), "x")

    shown = repr((logs, vault, vars(vault), sealed, Secret(CLEAR)))

    assert [text for text in (key, base64.b64decode(key).hex(), CLEAR) if text in shown] == []


def test_the_same_secret_is_never_sealed_the_same(tmp_path):
    vault = opened(tmp_path)

    assert 10 == len({vault.seal(Secret(CLEAR), "x").data for _ in range(10)})


def test_a_value_moved_to_another_row_or_field_does_not_open(tmp_path):
    vault = opened(tmp_path)
    sealed = vault.seal(Secret(CLEAR), "auth/1/password")

    for place in ("auth/2/password", "auth/1/user", ""):
        with pytest.raises(VaultError, match="damaged, or was moved here") as refused:
            vault.unseal(sealed, place)
        assert CLEAR not in str(refused.value)


@pytest.mark.parametrize("at", [0, 11, 12, -1])
def test_a_value_with_a_bit_changed_does_not_open(tmp_path, at):
    vault = opened(tmp_path)
    sealed = vault.seal(Secret(CLEAR), "x")
    data = bytearray(sealed.data)
    data[at] ^= 1

    with pytest.raises(VaultError, match="damaged"):
        vault.unseal(Sealed(sealed.key_id, bytes(data)), "x")
    with pytest.raises(VaultError, match="damaged"):
        vault.unseal(Sealed(sealed.key_id, b""), "x")


def test_a_credential_goes_before_a_file_before_the_environment_before_its_own(tmp_path, monkeypatch):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    keys = {name: new_key() for name in ("credential", "file", "environment")}
    (tmp_path / "file.key").write_text(keys["file"])
    (tmp_path / "file.key").chmod(0o600)
    (credentials / "cohortd-key").write_text(keys["credential"])

    own = opened(tmp_path).key_id
    monkeypatch.setenv("COHORTD_VAULT_KEY", keys["environment"])
    environment = Vault.open(tmp_path, load(flags={"data_dir": tmp_path})).key_id
    monkeypatch.setenv("COHORTD_VAULT_KEY_FILE", str(tmp_path / "file.key"))
    file = Vault.open(tmp_path, load(flags={"data_dir": tmp_path}))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    credential = Vault.open(tmp_path, load(flags={"data_dir": tmp_path}))

    expected = [module.Key(base64.b64decode(key)).id for key in keys.values()]
    assert expected == [credential.key_id, file.key_id, environment]
    # What was sealed before a key was given still opens.
    assert [own] == credential.older == file.older
    assert keys["environment"] not in str(masked(load(flags={"data_dir": tmp_path})))


def test_a_key_given_as_digits_is_the_same_key(tmp_path):
    content = secrets.token_bytes(32)
    for number, text in enumerate((content.hex(), base64.b64encode(content).decode() + "\n\n# old")):
        (tmp_path / f"{number}.key").write_text(text)

    made = {opened(tmp_path, key_file=tmp_path / f"{number}.key").key_id for number in range(2)}

    assert {module.Key(content).id} == made


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "there is no key in it"),
        ("# only words\n", "there is no key in it"),
        ("hunter2", "line 1: not a key"),
        pytest.param(new_key() + "\n" + base64.b64encode(bytes(31)).decode(), "line 2: not a key", id="31 bytes"),
        ("\u00e9" * 44, "is not text"),
        ("x" * 70_000, "which is no file of keys"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_key_that_cannot_be_read_is_a_clear_state_and_no_crash(tmp_path, content, said):
    if content is not None:
        (tmp_path / "k").write_text(content, encoding="utf-8")

    with capture_logs() as logs:
        vault = opened(tmp_path, key_file=tmp_path / "k")

    assert said in vault.problem
    assert "hunter2" not in vault.problem
    assert ["vault_key_refused"] == [each["event"] for each in logs if each["log_level"] == "error"]
    assert ("", []) == (vault.key_id, vault.known)
    with pytest.raises(VaultError, match=said):
        vault.seal(Secret(CLEAR), "x")
    with pytest.raises(VaultError, match="this daemon has none"):
        vault.unseal(Sealed("00000000", bytes(40)), "x")
    assert content is None or content == (tmp_path / "k").read_text(encoding="utf-8")  # it is never overwritten


def test_a_key_that_is_lost_is_said_with_what_to_do_and_found_again_when_put_back(tmp_path):
    sealed = opened(tmp_path).seal(Secret(CLEAR), "x")
    kept = (tmp_path / "vault.key").read_text()
    (tmp_path / "vault.key").unlink()
    vault = opened(tmp_path)

    with pytest.raises(VaultError, match=f"sealed with another key .{sealed.key_id}.*add that key as a line to"):
        vault.unseal(sealed, "x")
    with (tmp_path / "vault.key").open("a") as file:
        file.write(kept)

    assert CLEAR == vault.unseal(sealed, "x").reveal()
    assert sealed.key_id in vault.older


def test_others_can_read_the_key_and_that_is_said(tmp_path):
    (tmp_path / "k").write_text(new_key())
    (tmp_path / "k").chmod(0o644)

    with capture_logs() as logs:
        opened(tmp_path, key_file=tmp_path / "k")

    assert [("vault_key_exposed", "644")] == [
        (each["event"], each["mode"]) for each in logs if each["log_level"] == "warning"
    ]


def test_a_new_key_seals_and_the_old_one_opens_until_it_is_dropped(tmp_path):
    vault = opened(tmp_path)
    old = vault.key_id
    before = vault.seal(Secret(CLEAR), "x")

    new = vault.add()
    after = vault.seal(Secret(CLEAR), "x")

    assert (new, [new, old]) == (after.key_id, vault.known)
    assert {CLEAR} == {opened(tmp_path).unseal(each, "x").reveal() for each in (before, after)}
    assert [] == vault.drop([old])
    assert [old] == vault.drop([])
    assert [new] == vault.known == opened(tmp_path).known
    assert 0o600 == (tmp_path / "vault.key").stat().st_mode & 0o777
    assert ["vault.key"] == [each.name for each in tmp_path.iterdir()]


def test_a_key_that_was_given_cannot_be_replaced_here_and_that_is_said(tmp_path):
    vault = opened(tmp_path, key=new_key())

    assert not vault.writable
    with pytest.raises(VaultError, match="put a new key before the present one there"):
        vault.add()


def test_a_write_that_fails_leaves_the_keys_as_they_were(tmp_path, monkeypatch):
    vault = opened(tmp_path)
    before = (tmp_path / "vault.key").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(VaultError, match="cannot be written: No space left"):
        vault.add()

    assert before == (tmp_path / "vault.key").read_bytes()
    assert vault.seal(Secret(CLEAR), "x").key_id == opened(tmp_path).key_id
