"""Replacing the key of the vault: a new one seals, every secret is sealed anew, then the old one goes.

At every moment the file of keys has each key that some row needs, so whenever this is cut off, all can be read; doing
it again finishes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon import log
from daemon.store import auths
from daemon.store.database import Database
from daemon.store.erasures import truncate
from daemon.vault import Sealed, Vault, VaultError

#: Secrets that are sealed anew in one transaction.
PAGE = 100


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of it: the key that seals now, and how many secrets were sealed anew.

    finished: an earlier one that was cut off was finished, no further key was made. left: secrets that are still under
    other keys because they could not be opened, by key. dropped: keys that are gone. unused: keys that no secret needs.
    """

    key: str
    resealed: int
    finished: bool
    left: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def place(auth_id: str, name: str) -> str:
    """Names what a sealed value is for."""
    return f"auth/{auth_id}/{name}"


async def rotate(state: Database, vault: Vault, *, keep: bool = False) -> Rotation:
    """Replaces the key. `keep`: old keys stay in the file and open, for backups that were made under them.

    A key that comes from a credential or the environment is replaced there; this then seals anew what is under older
    ones. Raises VaultError when there is nothing to be done here, with what to do.
    """
    vault.look()
    used = await state.write(auths.keys_used)
    finished = any(key in used for key in vault.older)
    if not finished:
        vault.add()
    resealed = await _seal_anew(state, vault)
    # All in the writer's turn: a secret that was sealed before the new key is stored by then, or sealed with it.
    left = {key: count for key, count in (await state.write(auths.keys_used)).items() if key != vault.key_id}
    dropped = vault.drop(left) if vault.writable and not keep else []
    await _forget_replaced(state)
    unused = tuple(key for key in vault.older if key not in left)
    log.get().info("key_rotated", key=vault.key_id, resealed=resealed, dropped=dropped, left=sum(left.values()))
    return Rotation(vault.key_id, resealed, finished, left, tuple(dropped), unused)


async def _seal_anew(state: Database, vault: Vault) -> int:
    resealed, after = 0, ("", "")
    while True:
        # Opened and sealed in the loop: 100 of them take a millisecond.
        rows = await state.write(lambda db, after=after: auths.under_other_keys(db, vault.key_id, after, PAGE))  # type: ignore[misc]
        if not rows:
            return resealed
        after = rows[-1].auth_id, rows[-1].field
        anew = []
        for row in rows:
            name = place(row.auth_id, row.field)
            try:
                secret = vault.unseal(Sealed(row.key_id or "", row.sealed or b""), name)
            except VaultError:
                continue  # it stays as it is, and its authorization says why it is unknown
            sealed = vault.seal(secret, name)
            anew.append((row, sealed.key_id, sealed.data))
        resealed += await state.write(lambda db, anew=anew: auths.reseal(db, anew))  # type: ignore[misc]


async def _forget_replaced(state: Database) -> None:
    """Empties the write-ahead log, where what was sealed with the old key stands still; a reader may forbid it."""
    emptied: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: object, error: BaseException | None) -> None:
        if not emptied.done():
            emptied.set_result(None) if error is None else emptied.set_exception(error)

    state.submit(truncate, done, own=True)
    await emptied
