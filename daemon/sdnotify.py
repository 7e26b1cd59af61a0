"""What systemd is told: ready, stopping, a line of status, and that the event loop still turns.

Without `$NOTIFY_SOCKET` all of it does nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Sends to the service manager that started us, as `environment` says."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = 0.0
        interval, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if interval.isdecimal() and process in ("", str(os.getpid())):
            self._watchdog_s = int(interval) / 1_000_000

    def ready(self, status: str) -> None:
        """Says that the daemon serves."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Says that the daemon is about to end."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Gives the line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    async def watchdog(self) -> None:
        """Sends a sign of life at half the interval that systemd asks for; ends at once where it asks for none.

        It is sent from the event loop, so a loop that hangs is killed and started again.
        """
        if not self._address or not self._watchdog_s:
            return
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # systemd being gone or slow must not end the daemon; it acts by itself when it hears nothing.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(message.encode(), self._address)
