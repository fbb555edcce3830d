"""Headless Chromium by the DevTools protocol, over a pipe: no driver and no package beside the browser itself.

It also takes pictures: `Browser.screenshot`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = ("disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync", "no-first-run")

KEYS = {"Enter": "\r", "Escape": "", "Tab": "", "ArrowLeft": "", "ArrowRight": ""}
"""Keys with a name -> the text that they write."""


def chromium() -> str | None:
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of a browser.

    Args:
        commands: a file to write messages to, a NUL after each.
        answers: a file to read them from.

    Attributes:
        events: what the browser has told unasked.
        session: of the tab that is open.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        self._session: dict[str, str] = {}
        self.session = ""
        self.new_page()

    def new_page(self) -> str:
        """Open another tab and go on there; its session."""
        target = self.call("Target.createTarget", url="about:blank", whole=True)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True, whole=True)["sessionId"]
        self.turn_to(session)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return session

    def turn_to(self, session: str) -> None:
        """Go on in another tab."""
        self.session, self._session = session, {"sessionId": session}

    def call(self, method: str, whole: bool = False, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its result; what is told meanwhile goes to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({} if whole else self._session)
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            return answer["result"]

    def open(self, url: str) -> None:
        """Go to an address; `until` waits for what is there."""
        self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(told["exceptionDetails"])
        return told["result"].get("value")

    def until(self, expression: str, seconds: int = 60) -> None:
        """Wait, frame by frame, until an expression in the page is true."""
        body = f"(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()"
        waits = f"""new Promise((done, late) => {{
          const end = performance.now() + {1000 * seconds};
          const look = () => {body} ? done(true) : performance.now() > end ? late('late') : setTimeout(look, 10);
          look(); }})"""
        try:
            self.js(waits)
        except RuntimeError as error:
            if "late" not in str(error):  # the page went from under it
                self.js(waits)
            else:
                raise AssertionError(
                    f"not within {seconds} s: {expression}\n{self.js('document.body.innerText')}"
                ) from error

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = KEYS.get(key, key)
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        """Put text in where the cursor is."""
        self.call("Input.insertText", text=text)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Of the window, and whether its owner likes the dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 16)
            if not part:
                raise RuntimeError("the browser is gone")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(program: str, profile: Path) -> Generator[Browser]:
    """A browser for as long as the context lasts.

    Args:
        program: of `chromium`.
        profile: a folder for what it keeps.
    """
    to_it, commands = os.pipe()
    answers, from_it = os.pipe()
    flags = ["--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    words = [program, *flags, *(f"--{flag}" for flag in QUIET), "about:blank"]
    reads_3_writes_4 = f'exec "$0" "$@" 3< /dev/fd/{to_it} 4> /dev/fd/{from_it}'
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        ["sh", "-c", reads_3_writes_4, *words], stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=(to_it, from_it)
    )
    os.close(to_it)
    os.close(from_it)
    try:
        page = Browser(commands, answers)
        yield page
        page.call("Browser.close", whole=True)
    finally:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands)
        os.close(answers)
