"""Opens pages in headless Chromium by its DevTools protocol and waits for what they show.

usage: browser.py, then a JSON line per step on standard input: {"open": URL, "until": expression}
Prints `ready`, then a line per step: {"text": the page's text, "errors": what its scripts threw and logged as errors}.
A step whose expression does not become true within a minute has `text` null.
"""
import asyncio, json, pathlib, subprocess, sys, tempfile, urllib.request
import websockets

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --window-size=1300,1000 --remote-debugging-port=0"


class Page:
    def __init__(self, socket):
        self.socket, self.number, self.errors = socket, 0, []

    async def call(self, method, **params):
        self.number += 1
        await self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            heard = json.loads(await self.socket.recv())
            if heard.get("method") == "Runtime.exceptionThrown":
                told = heard["params"]["exceptionDetails"]
                self.errors.append(told.get("exception", {}).get("description", told["text"]))
            if heard.get("method") == "Log.entryAdded" and heard["params"]["entry"]["level"] == "error":
                self.errors.append(heard["params"]["entry"]["text"])
            if heard.get("id") == self.number:
                return heard["result"]

    async def value(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def step(self, url, until):
        # By way of an empty page, so that a change of the fragment loads the page anew.
        await self.call("Page.navigate", url="about:blank")
        await self.call("Page.navigate", url=url)
        for _ in range(600):
            if await self.value(until) is True:
                return await self.value("document.body.innerText")
            await asyncio.sleep(0.1)


async def listening(browser, file):
    """The port that the browser chose; it writes the file when it listens there."""
    while browser.poll() is None:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return int(lines[0])
        await asyncio.sleep(0.05)
    sys.exit(f"chromium ended with {browser.returncode}")


async def target(port):
    """Where the one page of a fresh browser is spoken to."""
    url = f"http://127.0.0.1:{port}/json/list"
    pages = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(url).read()))
    return next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")


async def main(folder):
    command = ["chromium", *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await listening(browser, pathlib.Path(folder, "DevToolsActivePort"))
        async with websockets.connect(await target(port), max_size=None, proxy=None) as socket:
            page = Page(socket)
            for domain in ["Page", "Runtime", "Log"]:
                await page.call(f"{domain}.enable")
            print("ready", flush=True)
            for line in iter(sys.stdin.readline, ""):
                asked = json.loads(line)
                text = await page.step(asked["open"], asked["until"])
                print(json.dumps({"text": text, "errors": page.errors}), flush=True)
                page.errors = []
    finally:
        browser.kill()
        browser.wait()


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    asyncio.run(main(folder))
