"""PGP: encrypts for a public key, and decrypts with a private one, piece by piece, in memory that does not grow.

The library holds the interpreter's lock for as long as it works, so that it works in a process of its own, one for each
file, which is fed through pipes. Keys go that way too: they stand in no argument, no environment and no file. All that
is here waits for that process and belongs into a thread; `close` ends it at any time, from anywhere.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final

from anyio.to_thread import run_sync
from pydantic import AfterValidator

from connectors.sdk.formats.compression import STEP_BYTES

#: How long the process may take without anything going in or out, in seconds.
STALLED_S: Final = 60.0
#: The largest clear text that is kept on the disk until all of a message is verified, in bytes, and how much of what
#: is free on that disk it may take.
MOST_CLEAR_BYTES: Final = 20 * 1024**3
MOST_OF_FREE: Final = 0.5
#: What a message is known by: enough for the packets that say whom it is for.
HEAD_BYTES: Final = 16 * 1024
#: The longest text of a key, in characters.
LONGEST_KEY: Final = 256 * 1024

_PIPE_BYTES: Final = 1024 * 1024
_MOST_SAID: Final = 16 * 1024
_BEGINS: Final = re.compile(r"^-----BEGIN PGP ([A-Z ]+)-----[ \t\r]*$", re.MULTILINE)
_PUBLIC, _PRIVATE = "PUBLIC KEY BLOCK", "PRIVATE KEY BLOCK"
_PROGRAM: Final = Path(__file__).with_name("pgp_process.py")


class PgpError(ValueError):
    """A key that cannot be used, or a message that cannot be read. The text is for people, and has no secret."""


class ProcessEndedError(OSError):
    """The process that encrypts or decrypts ended, or stood still; doing it again may help."""


def public_key(text: str) -> str:
    """Gives the text of a public key back when it looks like one: armoured, and no private one.

    Raises PgpError. It only looks at the text; `check_keys` finds out whether it can be used.
    """
    return _armoured(text, _PUBLIC, "a public key", "gpg --armor --export KEY")


def private_key(text: str) -> str:
    """Gives the text of a private key back when it looks like one, as `public_key` does."""
    return _armoured(text, _PRIVATE, "a private key", "gpg --armor --export-secret-keys KEY")


#: A public key in a model.
PublicKey = Annotated[str, AfterValidator(public_key)]


def _armoured(text: str, wanted: str, what: str, command: str) -> str:
    if len(text) > LONGEST_KEY:
        raise PgpError(f"a key of {len(text)} characters is too long; at most {LONGEST_KEY} are accepted")
    found = _BEGINS.search(text)
    if found is None:
        if "-----BEGIN PGP" in text:
            raise PgpError(
                f"the lines of the key were joined; give {what} with its line ends, as `{command}` writes it"
            )
        raise PgpError(f"not armoured: {what} is accepted as the text that `{command}` writes")
    if found[1] != wanted:
        named = {_PUBLIC: "a public key", _PRIVATE: "a private key"}.get(found[1], f"a PGP {found[1].lower()}")
        raise PgpError(f"this is {named}; {what} is wanted, as `{command}` writes it")
    if f"-----END PGP {wanted}-----" not in text:
        raise PgpError(f"the key has no end; its last line is -----END PGP {wanted}-----")
    return text


async def check_keys(
    *, public: str | None = None, private: str | None = None, passphrase: str | None = None, now_us: int
) -> None:
    """Finds out whether keys can be used: readable, not expired, not revoked, for encryption, opened by the passphrase.

    Where both are given they must be a pair. Raises PgpError, which says which of them it is about; ProcessEndedError.
    """
    keys = {
        "public": None if public is None else public_key(public),
        "private": None if private is None else private_key(private),
        "passphrase": passphrase,
    }
    process = _Process({"do": "check", "now_us": now_us} | keys)
    try:
        await run_sync(lambda: list(process.end()), abandon_on_cancel=True)
    finally:
        process.close()


class Encryptor:
    """Encrypts what is fed for a public key; `feed` and `end` give what is to be written.

    It stands behind a `Packer`, which compresses first. Raises PgpError for a key that cannot be encrypted for,
    ProcessEndedError.
    """

    #: What stands at the end of an encrypted file's name.
    ENDING: Final = ".pgp"

    def __init__(self, key: str, *, now_us: int) -> None:
        self._process = _Process({"do": "encrypt", "public": public_key(key), "now_us": now_us})

    def feed(self, data: bytes) -> bytes:
        """Gives what can be written by now."""
        return b"".join(self._process.feed(data))

    def end(self) -> bytes:
        """Gives the rest."""
        return b"".join(self._process.end())

    def close(self) -> None:
        """Ends the process, also while it is fed in another thread. Again, it does nothing."""
        self._process.close()


class Decryptor:
    """Decrypts what is fed with a private key, and gives nothing before all of it is verified.

    The clear text is kept until then in a file of `folder` that has no name, and is gone with the process that made it.
    It is an `Unpacking`: `end` yields everything. Raises PgpError for a key that cannot be used, a message that is not
    for it, is damaged, not complete, or clear larger than `most_bytes` or half of what is free; ProcessEndedError;
    OSError where nothing can be written.
    """

    def __init__(
        self,
        key: str,
        passphrase: str | None,
        folder: Path,
        *,
        now_us: int,
        most_bytes: int = MOST_CLEAR_BYTES,
    ) -> None:
        self._request = {"do": "decrypt", "private": private_key(key), "passphrase": passphrase, "now_us": now_us}
        self._folder = folder
        self._most = most_bytes
        self._head = b""
        self._process: _Process | None = None
        self._clear: IO[bytes] | None = None
        self._closed = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Takes some of the message."""
        if self._process is None:
            self._head += chunk
            if len(self._head) < HEAD_BYTES:
                return iter(())
            process, chunk = self._begin()
        else:
            process = self._process
        self._keep(process.feed(chunk))
        return iter(())

    def end(self) -> Iterator[bytes]:
        """Yields the clear text."""
        if self._process is None:
            if not self._head:
                raise PgpError("the message is empty")
            process, chunk = self._begin()
            self._keep(process.feed(chunk))
        else:
            process = self._process
        self._keep(process.end())
        clear = self._clear
        assert clear is not None  # noqa: S101  (made with the process)
        clear.seek(0)
        while piece := clear.read(STEP_BYTES):
            yield piece

    def close(self) -> None:
        """Ends the process and lets go of the clear text. Not while it is fed in another thread: see `stop`."""
        self.stop()
        if self._clear is not None:
            self._clear.close()

    def stop(self) -> None:
        """Ends the process, also while it is fed in another thread, which then raises."""
        self._closed = True
        if self._process is not None:
            self._process.close()

    def _begin(self) -> tuple[_Process, bytes]:
        head, self._head = self._head, b""
        if self._closed:
            raise ProcessEndedError("decrypting was stopped")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._clear = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (closed by close)
        status = os.statvfs(self._folder)
        self._most = min(self._most, int(status.f_bavail * status.f_frsize * MOST_OF_FREE))
        known = base64.b64encode(head[:HEAD_BYTES]).decode()
        self._process = _Process(self._request | {"head": known})
        self._request = {}
        return self._process, head

    def _keep(self, pieces: Iterator[bytes]) -> None:
        clear = self._clear
        assert clear is not None  # noqa: S101  (as above)
        for piece in pieces:
            if clear.tell() + len(piece) > self._most:
                self.stop()
                raise PgpError(f"the message decrypts to more than the {self._most} bytes that may be kept on the disk")
            clear.write(piece)


class _Process:
    """One process and its pipes. It is started by what is first asked of it, in the thread that asks."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._process: subprocess.Popen[bytes] | None = None
        self._poll = select.poll()
        self._lock = threading.Lock()
        self._said = b""
        self._closed = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what comes out while `data` goes in."""
        self._start()
        view = memoryview(data)
        while view:
            sent, piece, over = self._step(view)
            view = view[sent:]
            if piece:
                yield piece
            if over:
                raise self._failure()

    def end(self) -> Iterator[bytes]:
        """Yields the rest, and returns when all went well."""
        self._start()
        with self._lock:
            process = self._running
            assert process.stdin is not None  # noqa: S101  (pipes)
            self._poll.unregister(process.stdin.fileno())
            process.stdin.close()
        over = False
        while not over:
            _, piece, over = self._step(None)
            if piece:
                yield piece
        if not any("done" in each for each in self._lines()):
            raise self._failure()
        self.close()

    def close(self) -> None:
        """Kills the process, waits for its end and closes the pipes."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self._process.kill()  # type: ignore[union-attr]  # whoever waits for it in another thread comes back
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProcessEndedError("the process of PGP was stopped")
        return self._process

    def _start(self) -> None:
        with self._lock:
            if self._process is not None or self._closed:
                return
            self._process = process = subprocess.Popen(  # noqa: S603  (our own program)
                [sys.executable, "-I", "-S", str(_PROGRAM), _library()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={"LC_ALL": "C.UTF-8", "RUST_BACKTRACE": "0"},
                start_new_session=True,
            )
            assert process.stdin is not None  # noqa: S101  (pipes)
            assert process.stdout is not None  # noqa: S101
            assert process.stderr is not None  # noqa: S101
            os.set_blocking(process.stdin.fileno(), False)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # where others took all that a user may have
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._poll.register(process.stdin, select.POLLOUT)
            self._poll.register(process.stdout, select.POLLIN)
            self._poll.register(process.stderr, select.POLLIN)
        request = json.dumps(self._request).encode()
        self._request = {}
        list(self.feed(len(request).to_bytes(4, "big") + request))  # nothing comes out before all of it is in

    def _step(self, view: memoryview | None) -> tuple[int, bytes, bool]:
        """Waits, and moves what can be moved: gives how much went in, what came out, and whether nothing more will."""
        with self._lock:
            process = self._running
            stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
            assert stdout is not None  # noqa: S101  (pipes)
            assert stderr is not None  # noqa: S101
            ready = dict(self._poll.poll(STALLED_S * 1000))
            if not ready:
                process.kill()
                raise ProcessEndedError(f"the process of PGP stood still for {STALLED_S:g} s")
            if stderr.fileno() in ready:
                said = os.read(stderr.fileno(), 4096)
                self._said = (self._said + said)[-_MOST_SAID:]
                if not said:
                    self._poll.unregister(stderr.fileno())
            sent, piece, over = 0, b"", False
            if stdout.fileno() in ready:
                piece = os.read(stdout.fileno(), STEP_BYTES)
                over = not piece
            elif view is not None and stdin is not None and stdin.fileno() in ready:
                try:
                    sent = os.write(stdin.fileno(), view[:_PIPE_BYTES])
                except BrokenPipeError:
                    over = True
                except BlockingIOError:
                    pass
            return sent, piece, over

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._said.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [each for each in found if isinstance(each, dict)]

    def _failure(self) -> Exception:
        """Gives the error that the process told, once it has ended."""
        with self._lock:
            process = self._running
            assert process.stderr is not None  # noqa: S101  (a pipe)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STALLED_S)
            os.set_blocking(process.stderr.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while more := os.read(process.stderr.fileno(), 4096):
                    self._said = (self._said + more)[-_MOST_SAID:]
            status = process.returncode
        self.close()
        for line in self._lines():
            if "refused" in line:
                return PgpError(str(line["refused"]))
            if "crashed" in line:
                return ProcessEndedError(f"the process of PGP failed by {line['crashed']}")
        return ProcessEndedError(f"the process of PGP ended too early (status {status})")


@functools.cache
def _library() -> str:
    """Gives the folder that holds the library, without loading it here."""
    found = importlib.util.find_spec("pysequoia")
    if found is None or found.origin is None:
        raise PgpError("PGP needs the library pysequoia: install cohortd[pgp]")
    return str(Path(found.origin).parents[1])
