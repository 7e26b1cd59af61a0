from __future__ import annotations

import asyncio
import gzip
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpg import Gpg, gpg_home

pysequoia = pytest.importorskip("pysequoia", reason="needs pysequoia")
if shutil.which("gpg") is None:
    pytest.skip("needs gpg", allow_module_level=True)

from connectors.sdk.formats import pgp
from connectors.sdk.formats.compression import Packer

NOW_US = 1_795_000_000_000_000  # in November 2026
DAY_US = 86_400_000_000
PASSPHRASE = "correct horse battery"
CONTENT = b"".join(b"%d,ann%d@example.org,caf\xc3\xa9\n" % (n, n) for n in range(20_000))


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    with gpg_home() as found:
        found.make("cv")
        found.make("rsa", kind="rsa2048", passphrase=PASSPHRASE)
        found.make("other")
        yield found


def made(**options: Any) -> Any:
    return pysequoia.Tsk.generate("A <a@example.org>", profile=pysequoia.Profile.RFC4880, **options)


def public_of(tsk: Any) -> str:
    return str(tsk.extract_certificate())


def encrypted(key: str, content: bytes, step: int = 70_000, packer: Any = None) -> bytes:
    encryptor = pgp.Encryptor(key, now_us=NOW_US)
    stage = encryptor if packer is None else packer(encryptor)
    try:
        found = b"".join(stage.feed(content[at : at + step]) for at in range(0, len(content), step))
        return found + stage.end()
    finally:
        stage.close()


def decrypted(
    key: str, message: bytes, folder: Path, passphrase: str | None = None, step: int = 50_000, **options: Any
) -> bytes:
    decryptor = pgp.Decryptor(key, passphrase, folder, now_us=NOW_US, **options)
    try:
        for at in range(0, len(message), step):
            assert list(decryptor.feed(message[at : at + step])) == []
        return b"".join(decryptor.end())
    finally:
        decryptor.close()


def children() -> list[str]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                line = (each / "cmdline").read_bytes()
                parent = (each / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid() and b"pgp_process" in line:
                found.append(each.name)
    return found


# --- with gpg, both ways


@pytest.mark.parametrize("name", ["cv", "rsa"])
def test_gpg_decrypts_what_we_encrypt(gpg, name):
    message = encrypted(gpg.public(name), CONTENT)

    assert CONTENT not in message
    assert gpg.decrypt(message, PASSPHRASE) == CONTENT
    assert gpg.decrypt(encrypted(gpg.public(name), b""), PASSPHRASE) == b""


def test_what_is_packed_is_compressed_and_then_encrypted(gpg):
    message = encrypted(gpg.public("cv"), CONTENT, packer=lambda stage: Packer("gzip", "x.csv", stage))

    assert len(message) < len(CONTENT) / 2
    assert gzip.decompress(gpg.decrypt(message)) == CONTENT


@pytest.mark.parametrize("armour", [False, True])
@pytest.mark.parametrize(("name", "passphrase"), [("cv", None), ("rsa", PASSPHRASE)])
def test_we_decrypt_what_gpg_encrypts(gpg, tmp_path, name, passphrase, armour):
    private = gpg.private(name, passphrase or "")
    message = gpg.encrypt(CONTENT, name, armour=armour)

    for step in (1000, 1_000_000):
        assert decrypted(private, message, tmp_path, passphrase, step) == CONTENT


@pytest.mark.parametrize(
    "more",
    [("--compress-algo", "none"), ("--compress-algo", "zip"), ("--throw-keyids",), ("--sign", "--local-user", "cv")],
)
def test_whatever_gpg_was_told_to_do_beside_it_is_understood(gpg, tmp_path, more):
    message = gpg.encrypt(CONTENT, "other", "cv", more=more)

    if "--throw-keyids" not in more:
        assert decrypted(gpg.private("cv"), message, tmp_path) == CONTENT
    assert decrypted(gpg.private("other"), message, tmp_path) == CONTENT


def test_a_passphrase_that_is_not_needed_is_not_asked_for(gpg, tmp_path):
    assert decrypted(gpg.private("cv"), gpg.encrypt(b"x", "cv"), tmp_path, "never needed") == b"x"


def test_of_a_key_with_several_subkeys_the_one_that_was_encrypted_for_is_taken(gpg, tmp_path):
    fingerprint = gpg.make("rotated")
    gpg("--quick-add-key", fingerprint, "cv25519", "encrypt", "never")
    lines = gpg("--with-colons", "--list-keys", "rotated").decode().splitlines()
    subkeys = [line.split(":")[4] for line in lines if line.startswith("sub:") and "e" in line.split(":")[11]]
    private = gpg.private("rotated")

    assert len(subkeys) == 2
    for each in subkeys:
        message = gpg.encrypt(each.encode(), f"{each}!")
        assert decrypted(private, message, tmp_path) == each.encode()


# --- keys that cannot be used


def refused(**keys: Any) -> str:
    with pytest.raises(pgp.PgpError) as told:
        asyncio.run(pgp.check_keys(**({"now_us": NOW_US} | keys)))
    text = str(told.value)
    assert "PRIVATE" not in text.replace("-----END PGP PRIVATE KEY BLOCK-----", "")
    assert PASSPHRASE not in text
    return text


def test_keys_that_can_be_used_are_not_complained_of(gpg):
    async def check() -> None:
        for name, passphrase in (("cv", None), ("rsa", PASSPHRASE)):
            public, private = gpg.public(name), gpg.private(name, passphrase or "")
            await pgp.check_keys(public=public, private=private, passphrase=passphrase, now_us=NOW_US)
            await pgp.check_keys(public=f"Ann's key\n\n{public}\n".replace("\n", "\r\n"), now_us=NOW_US)

    asyncio.run(check())
    assert children() == []


def test_each_key_that_cannot_be_used_is_told_from_the_others(gpg):
    public, private = gpg.public("cv"), gpg.private("cv")
    garbled = public.replace("\n\n", "\n\nAAAA", 1)
    short = made(validity_seconds=86_400)
    later = {"now_us": NOW_US + 2000 * DAY_US}
    gpg("--quick-gen-key", "signer", "ed25519", "sign", "never")
    revoked = made()
    certificate = revoked.extract_certificate()
    gone = pysequoia.Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(revoked.certifier())))

    assert "not armoured" in refused(public=gpg("--export", "cv").decode("latin-1"))
    assert "not armoured" in refused(public="ssh-ed25519 AAAA ann@example.org")
    assert "lines of the key were joined" in refused(public=public.replace("\n", " "))
    assert "this is a private key; a public key is wanted" in refused(public=private)
    assert "this is a public key; a private key is wanted" in refused(private=public)
    assert "has no end" in refused(public=public[: len(public) // 2])
    assert "no public key can be read" in refused(public=garbled)
    assert "holds 2 keys; one is accepted" in refused(public=gpg("--armor", "--export", "cv", "other").decode())
    assert "too long" in refused(public=public * 1000)
    assert "expired on 20" in refused(public=public_of(short), **later)
    assert "expired on 20" in refused(private=str(short), **later)
    assert "not for encryption" in refused(public=gpg.public("signer"))
    assert "not for encryption" in refused(private=gpg.private("signer"))
    assert "was revoked" in refused(public=str(gone))
    assert "give its passphrase" in refused(private=gpg.private("rsa", PASSPHRASE))
    assert "does not open" in refused(private=gpg.private("rsa", PASSPHRASE), passphrase=PASSPHRASE[:-1])
    assert "are no pair" in refused(public=public, private=gpg.private("other"))


def test_a_key_whose_subkey_for_encryption_has_expired_is_expired(gpg):
    fingerprint = gpg.make("lapsing")
    lines = gpg("--with-colons", "--list-keys", "lapsing").decode().splitlines()
    subkey = [line.split(":")[9] for line in lines if line.startswith("fpr")][1]
    gpg("--quick-set-expire", fingerprint, "1d", subkey)
    public = gpg.public("lapsing")

    asyncio.run(pgp.check_keys(public=public, now_us=NOW_US - 3000 * DAY_US))
    assert "expired on 20" in refused(public=public, now_us=NOW_US + 3000 * DAY_US)


def test_a_key_that_expires_in_mid_life_is_refused_when_the_next_file_is_encrypted():
    key = public_of(made(validity_seconds=86_400))
    encryptor = pgp.Encryptor(key, now_us=NOW_US + 3000 * DAY_US)
    encryptor.feed(b"x")
    try:
        with pytest.raises(pgp.PgpError, match="expired on 20"):
            encryptor.end()
    finally:
        encryptor.close()
    assert children() == []


# --- messages that cannot be read: nothing of them is given


def test_of_a_message_that_cannot_be_read_nothing_is_given(gpg, tmp_path):
    private = gpg.private("cv")
    noise = random.Random(5).randbytes(200_000)  # so that it is not packed to nothing
    message = gpg.encrypt(noise * 300, "cv")  # the library itself holds 52 MB back
    small = gpg.encrypt(noise, "cv")
    for_other = gpg.encrypt(CONTENT, "other")
    late = len(message) * 9 // 10
    damaged = message[:late] + bytes([message[late] ^ 1]) + message[late + 1 :]
    password = gpg("--symmetric", given=CONTENT, passphrase="x")
    table = [
        (damaged, "damaged, or not complete"),
        (small[:100_000], "damaged, or not complete"),
        (small[:-1], "damaged, or not complete"),
        (for_other, "is encrypted for "),
        (password, "with a password"),
        (b"email,n\nann@example.org,1\n" * 5000, "no encrypted PGP message"),
        (gpg("--store", given=CONTENT), "no encrypted PGP message"),
        (gpg.encrypt(CONTENT, "cv", more=("--compress-algo", "bzip2")), "packed by bzip2"),
        (b"", "is empty"),
    ]

    for content, words in table:
        with pytest.raises(pgp.PgpError, match=words):
            decrypted(private, content, tmp_path)
    assert children() == []
    assert list(tmp_path.iterdir()) == []


def test_a_message_for_other_keys_says_which(gpg, tmp_path):
    lines = gpg("--with-colons", "--list-keys", "other").decode().splitlines()
    subkey = next(line.split(":")[4] for line in lines if line.startswith("sub:"))

    with pytest.raises(pgp.PgpError, match=subkey.lower()):
        decrypted(gpg.private("cv"), gpg.encrypt(CONTENT, "other"), tmp_path)


@pytest.mark.parametrize("content", [bytes(40_000_000), CONTENT * 10])
def test_clear_text_larger_than_may_be_kept_is_refused(gpg, tmp_path, content):
    message = gpg.encrypt(content, "cv", more=("--compress-algo", "zlib"))

    with pytest.raises(pgp.PgpError, match="more than the 1000000 bytes"):
        decrypted(gpg.private("cv"), message, tmp_path, most_bytes=1_000_000)
    assert decrypted(gpg.private("cv"), message, tmp_path, most_bytes=len(content)) == content
    assert children() == []


def test_clear_text_has_no_name_on_the_disk_and_keys_stand_in_no_argument(gpg, tmp_path):
    private = gpg.private("rsa", PASSPHRASE)
    decryptor = pgp.Decryptor(private, PASSPHRASE, tmp_path / "spool", now_us=NOW_US)
    try:
        list(decryptor.feed(gpg.encrypt(random.Random(5).randbytes(100_000), "rsa")))
        child = decryptor._process._process.pid
        while b"pgp_process" not in Path(f"/proc/{child}/cmdline").read_bytes():  # until it shows what it runs
            pass
        shown = Path(f"/proc/{child}/cmdline").read_bytes() + Path(f"/proc/{child}/environ").read_bytes()
        named = list((tmp_path / "spool").iterdir())
    finally:
        decryptor.close()

    assert named == []
    assert b"PGP PRIVATE" not in shown
    assert PASSPHRASE.encode() not in shown
    assert b"HOME=" not in shown
    assert PASSPHRASE not in repr(vars(decryptor)) + repr(vars(decryptor._process))


# --- the process


@pytest.fixture
def fed(gpg) -> Iterator[Any]:
    """An encryptor whose process is at work; its id stands in `pid`."""
    encryptor = pgp.Encryptor(gpg.public("cv"), now_us=NOW_US)
    try:
        encryptor.feed(b"begun\n")
        encryptor.pid = encryptor._process._process.pid
        yield encryptor
    finally:
        encryptor.close()
    assert children() == []


def test_a_process_that_is_killed_is_told_and_may_be_tried_again(fed):
    os.kill(fed.pid, signal.SIGKILL)

    with pytest.raises(pgp.ProcessEndedError, match="ended too early"):
        fed.feed(CONTENT * 10)


def test_a_process_that_stands_still_is_ended(fed, monkeypatch):
    monkeypatch.setattr(pgp, "STALLED_S", 0.2)
    os.kill(fed.pid, signal.SIGSTOP)

    with pytest.raises(pgp.ProcessEndedError, match="stood still"):
        fed.feed(CONTENT * 10)


def test_closing_ends_a_process_that_stands_still_and_whoever_waits_for_it(fed):
    os.kill(fed.pid, signal.SIGSTOP)
    told: list[Exception] = []
    poll, waits = fed._process._poll, threading.Event()

    class Watched:
        def poll(self, timeout_ms):
            ready = poll.poll(0)
            if not ready:
                waits.set()
            return ready or poll.poll(timeout_ms)

        def unregister(self, pipe):
            poll.unregister(pipe)

    fed._process._poll = Watched()

    def feed() -> None:
        try:
            fed.feed(CONTENT * 10)
        except pgp.ProcessEndedError as error:
            told.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    assert waits.wait(10)
    fed.close()
    thread.join(10)

    assert not thread.is_alive()
    assert len(told) == 1
    assert children() == []


def test_closing_before_and_after_is_harmless(gpg, tmp_path):
    encryptor = pgp.Encryptor(gpg.public("cv"), now_us=NOW_US)
    encryptor.close()
    with pytest.raises(pgp.ProcessEndedError):
        encryptor.feed(b"x")
    encryptor.close()
    decryptor = pgp.Decryptor(gpg.private("cv"), None, tmp_path, now_us=NOW_US)
    list(decryptor.feed(b"x"))
    decryptor.close()
    decryptor.close()
    with pytest.raises(pgp.ProcessEndedError):
        list(decryptor.end())


async def test_a_check_that_is_cancelled_leaves_no_process(gpg):
    public = gpg.public("cv")
    for turns in (1, 2, 5):
        checking = asyncio.ensure_future(pgp.check_keys(public=public, now_us=NOW_US))
        for _ in range(turns):
            await asyncio.sleep(0)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking

        async with asyncio.timeout(5):
            while children():
                await asyncio.sleep(0.01)


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_two_gigabytes_are_encrypted_and_decrypted_in_bounded_memory(gpg, tmp_path):
    piece = random.Random(7).randbytes(4 * 1024 * 1024)
    count = 512
    encryptor = pgp.Encryptor(gpg.public("cv"), now_us=NOW_US)
    highest: dict[str, int] = {}

    def look(name: str) -> None:
        for pid in (str(os.getpid()), *children()):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            rss = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
            highest[name] = max(highest.get(name, 0), rss if pid != str(os.getpid()) else 0)
            highest["us"] = max(highest.get("us", 0), rss if pid == str(os.getpid()) else 0)

    look("none")
    before = highest["us"]
    path = tmp_path / "x.pgp"
    with path.open("wb") as file:
        for number in range(count):
            file.write(encryptor.feed(piece))
            if number % 16 == 0:
                look("encrypting")
        file.write(encryptor.end())
        encryptor.close()
    decryptor = pgp.Decryptor(gpg.private("cv"), None, tmp_path, now_us=NOW_US)
    with path.open("rb") as file:
        while chunk := file.read(4 * 1024 * 1024):
            list(decryptor.feed(chunk))
            look("decrypting")
    found = 0
    for clear in decryptor.end():
        start = found % len(piece)
        wanted = piece[start : start + len(clear)]
        assert clear.startswith(wanted)
        assert clear[len(wanted) :] == piece[: len(clear) - len(wanted)]
        found += len(clear)
    look("us")
    decryptor.close()

    assert found == count * len(piece)
    assert highest["encrypting"] < 60_000_000
    assert highest["decrypting"] < 250_000_000
    assert highest["us"] < before + 50_000_000
