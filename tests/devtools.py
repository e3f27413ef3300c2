"""A headless Chromium that is driven: pages opened, keys pressed, sizes and themes changed, errors
gathered.

The protocol is Chromium's own (DevTools), over the pipe that it offers: no package is needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--proxy-server=127.0.0.1:9 --remote-debugging-pipe"  # nothing listens at that proxy
)
SECONDS = 60


def chromium() -> str | None:
    """The browser of this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. `errors`: the messages of errors; `requests`: all addresses that were asked for."""

    def __init__(self, process: subprocess.Popen, into: int, out: int):
        self.process, self._into = process, into
        self._answers: Queue = Queue()
        self._count, self._session = 0, None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = threading.Event()
        threading.Thread(target=self._read, args=(out,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params):
        """The answer to one command; raises RuntimeError with what the browser says against it."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            try:
                answer = self._answers.get(timeout=SECONDS)
            except Empty:
                raise RuntimeError(f"{method}: no answer in {SECONDS} s") from None
            if answer["id"] == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, address: str) -> None:
        """Go to a page and wait until it has loaded."""
        for url in ("about:blank", address):  # the first, since a new #part alone loads nothing
            self.errors.clear()
            self.requests.clear()
            self.loaded.clear()
            self.call("Page.navigate", url=url)
            if not self.loaded.wait(SECONDS):
                raise RuntimeError(f"{url}: not loaded in {SECONDS} s")

    def run(self, expression: str):
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", details).get("description", str(details)))
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until MathJax is done and two pictures have been drawn."""
        self.run("window.MathJax?.startup?.promise?.then(() => 1)")
        self.run("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(() => f(1))))")

    def size(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """CSS features of the reader: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        named = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.call("Emulation.setEmulatedMedia", features=named)

    def scripts(self, on: bool) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def press(self, key: str, shift: bool = False) -> None:
        code = {"key": key, "code": key, "modifiers": 8 if shift else 0}
        codes = {"Tab": 9, "Enter": 13, "Delete": 46, "ArrowLeft": 37, "ArrowUp": 38}
        codes |= {"ArrowRight": 39, "ArrowDown": 40}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=codes[key], **code)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y), buttons in (
            ("mousePressed", start, 1),
            ("mouseMoved", end, 1),
            ("mouseReleased", end, 0),
        ):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                buttons=buttons,
                clickCount=1,
            )

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot of what is seen, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _read(self, out: int) -> None:
        rest = b""
        while chunk := os.read(out, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict) -> None:
        if "id" in message:
            self._answers.put(message)
            return
        method, params = message["method"], message["params"]
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", details).get("description", "?"))
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", "")) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`, without a network; ended afterwards."""
    command = [chromium(), *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()

    def hand_over():  # the browser reads file 3 and writes file 4
        os.dup2(theirs_in, 30)
        os.dup2(theirs_out, 31)
        os.dup2(30, 3)
        os.dup2(31, 4)

    process = subprocess.Popen(
        command, preexec_fn=hand_over, close_fds=False, stdout=-3, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(process, ours_out, ours_in)
    finally:
        os.close(ours_out)
        process.terminate()
        process.wait(20)
