"""Chromium without a window, driven over two pipes: no driver, no port, no further package."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--mute-audio", "--remote-debugging-pipe"),
)
PATIENCE = 60.0
"""Seconds without a word from the browser after which it is given up."""
KEYS = {"Tab": 9, "Enter": 13}


def find() -> str | None:
    """Where Chromium lies; None where there is none."""
    return next((place for name in NAMES if (place := shutil.which(name))), None)


class Browser:
    """One page of a running Chromium, asked by the DevTools protocol.

    Args:
        asked: descriptor to which commands are written.
        told: descriptor from which answers and events are read.
    """

    def __init__(self, asked: int, told: int) -> None:
        self._asked, self._told = asked, told
        self._buffer, self._session, self._count = b"", "", 0
        self.events: list[dict[str, Any]] = []
        """Everything that was not an answer, in order."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; an ``AssertionError`` names what went wrong."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        command |= {"sessionId": self._session} if self._session else {}
        os.write(self._asked, json.dumps(command).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int, height: int = 844) -> None:
        """Load a file in a window (below 600 pixels: on a phone) of that size."""
        phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._read())

    def seen(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every event of that name since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        place = self.value(
            f"""(() => {{ const it = document.querySelector({json.dumps(selector)});
            it.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = it.getBoundingClientRect();
            return {{x: box.x + box.width / 2, y: box.y + box.height / 2}}; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str) -> None:
        """Press a key, as somebody at a keyboard does."""
        text = {"text": "\r"} if key == "Enter" else {}
        named = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        self.ask(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **named, **text
        )
        self.ask("Input.dispatchKeyEvent", type="keyUp", **named)

    def _read(self) -> dict[str, Any]:
        """The next message; an ``AssertionError`` where none comes."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._told], [], [], PATIENCE)
            assert ready, f"Chromium has said nothing for {PATIENCE:.0f} s"
            part = os.read(self._told, 1 << 16)
            assert part, "Chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@contextmanager
def running(program: str, profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the block.

    Args:
        program: see :func:`find`.
        profile: an empty folder.
    """
    theirs_in, asked = map(_high, os.pipe())
    told, theirs_out = map(_high, os.pipe())

    def connect() -> None:  # Chromium reads commands from 3 and answers on 4
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(3, 4),
        preexec_fn=connect,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(asked, told)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(asked)
        os.close(told)


def _high(descriptor: int) -> int:
    """The same end of a pipe under a number that is neither 3 nor 4."""
    other = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return other
