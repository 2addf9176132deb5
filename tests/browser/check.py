"""What a browser shows of image_proxy: its gallery, and the page of its live traces."""

import argparse
import contextlib
import json
import pathlib
import re
import time
import urllib.parse

import palette
from chromium import Chromium, Failed
from service import ImageProxy, OPENER, Service

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = "document.querySelectorAll('#rows .row')"
RUNNING = "document.querySelector('#running')"
# Markup in all that a client chooses. None of it may run, or become an element.
MARKUP = "<img src=x onerror=alert(1)><svg onload=alert(2)>"
UPSTREAM = "4bf92f3577b34da6a3ce929d0e0e4736"


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("examples", type=pathlib.Path, help="the folder of the examples' programs")
    arguments.add_argument("--picture", type=pathlib.Path, help="write the picture of the README there")
    arguments = arguments.parse_args()
    shots = ROOT / "target/browser"
    shots.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        def start(kind, name):
            service = kind(arguments.examples / name, shots / f"{name}.log")
            return stack.enter_context(contextlib.closing(service))

        browser = stack.enter_context(contextlib.closing(Chromium()))
        browser.size(1280, 900)
        proxy = start(ImageProxy, "image_proxy")
        page = Page(browser, proxy, shots)
        if arguments.picture:
            page.picture(arguments.picture)
            return
        server_timing(browser, start(Service, "hyper_thumbnailer"))
        for step in (page.empty, page.gallery, page.appears, page.hangs, page.together,
                     page.streams, page.details, page.search, page.grid,
                     page.keyboard, page.hostile, page.narrow, page.dark, page.foreign, page.cut):
            began = time.monotonic()
            step()
            print(f"ok {step.__name__}: {step.__doc__} ({time.monotonic() - began:.1f} s)", flush=True)


def server_timing(browser, thumbnailer):
    """The page of hyper_thumbnailer prints the timing that `performance` has for its picture."""
    browser.open(thumbnailer.address + "/")
    for stage in ("queue", "processing_image"):
        browser.until(rf"/{stage} [0-9]+(\.[0-9])? ms/.test(document.getElementById('timing').textContent)")
    print("ok server_timing: the browser knows the stages of hyper_thumbnailer's picture", flush=True)


class Page:
    def __init__(self, browser, proxy, shots):
        self.browser, self.proxy, self.shots = browser, proxy, shots
        self.address = f"{proxy.address}/debug/traces/"

    def shot(self, name, whole=True):
        self.browser.screenshot(self.shots / f"{name}.png", whole)

    def open(self, query=""):
        self.browser.open(self.address + query)
        self.browser.until("document.querySelector('#live.live')")

    def trace(self, query):
        """Opens the newest trace of a list."""
        self.open(f"?q={urllib.parse.quote(query)}")
        self.browser.until(f"{ROWS}.length")
        self.browser.js(f"{ROWS}[0].click()")
        self.browser.until("document.querySelector('#trace .span')")

    def says(self, *texts):
        for text in texts:
            self.browser.until(f"document.body.innerText.includes({json.dumps(text)})")

    def empty(self):
        """without requests the page says what to do"""
        self.open()
        self.says("No requests yet.", "Nothing is running.")
        self.shot("empty")

    def gallery(self):
        """each picture has its stages, and a link that opens its trace"""
        self.browser.open(self.proxy.address + "/")
        self.browser.until("document.querySelectorAll('figure a').length === document.querySelectorAll('figure').length")
        self.browser.until("document.querySelectorAll('.processing_image').length > 8")
        self.browser.until("[...document.images].every((img) => img.complete && img.naturalWidth > 0)")
        self.shot("gallery")
        self.expect_complaints("missing.jpg", "notes.txt", "elsewhere.png")
        link = self.browser.js("document.querySelector('figure a').href")
        self.browser.js("document.querySelector('figure a').click()")
        self.browser.until("document.querySelector('#trace .span')")
        if self.browser.js("location.href") != link:
            raise Failed(f"{link} does not stay in the address")
        self.says(link.partition("=")[2], "processing_image")

    def appears(self):
        """a request is a row without a reload"""
        self.open()
        self.proxy.get("rs:fit:51:51/f:png", "rocket.jpg")
        self.browser.until(f"{ROWS}[0].textContent.includes('rs:fit:51:51')")

    def hangs(self):
        """a request that hangs is there within a second, with stage and age, and gone within one of its end"""
        self.open()
        seen, gone = [], []
        for _ in range(3):
            began = time.monotonic()
            with self.proxy.hang():
                self.browser.until(f"/slow.png[^]*downloading_image .* s/.test({RUNNING}.innerText)")
                seen.append(time.monotonic() - began)
                self.shot("running", False)
                began = time.monotonic()
            self.browser.until(f"!{RUNNING}.innerText.includes('slow.png')")
            gone.append(time.monotonic() - began)
        # The fastest, because the machine may be busy with something else.
        if min(seen) > 1 or min(gone) > 1:
            raise Failed(f"a hung request is seen after {seen} s, and gone after {gone} s")

    def together(self):
        """running requests of one trace are a row each, and leave one by one"""
        self.open()
        rows = f"{RUNNING}.querySelectorAll('.row').length"
        visit = f"00-{'7' * 32}-00f067aa0ba902b7-01"
        with self.proxy.hang(traceparent=visit), self.proxy.hang(traceparent=visit):
            with self.proxy.hang(traceparent=visit):
                self.browser.until(f"{rows} === 3")
            self.browser.until(f"{rows} === 2")
        self.browser.until(f"{rows} === 0")

    def streams(self):
        """a stream that has had its time is followed by another one, and nothing says that it is cut"""
        self.open()
        asked = sum("api/events" in url for url in self.browser.requests)
        self.browser.js("window.cuts = 0; new MutationObserver(() => { cuts += 1 })"
                        ".observe(document.getElementById('cut'), {attributes: true})")
        deadline = time.monotonic() + 40
        while sum("api/events" in url for url in self.browser.requests) == asked:
            if time.monotonic() > deadline:
                raise Failed("the stream has no end")
            self.browser.js("0")
            time.sleep(0.2)
        # What happens now is told by the next stream.
        self.proxy.get("rs:fit:52:52/f:png", "rocket.jpg")
        self.browser.until(f"{ROWS}[0].textContent.includes('rs:fit:52:52')")
        if self.browser.js("window.cuts"):
            raise Failed("a stream that has had its time looks like one that is cut")

    def details(self):
        """the traces of the demo's cases show what happened"""
        self.proxy.get("rs:fit:300:200/f:jpg", "chelsea.png")
        self.trace("rs:fit:300:200/f:jpg chelsea.png")
        self.says("queue", "downloading_image", "processing_image", "streaming_image", "jpeg", "Where the time went")
        self.browser.js("document.querySelector('.span summary').click()")
        self.says("http.route", "/resize/{options}/{source}", "client.address")
        self.shot("detail")
        otlp = self.browser.js("fetch(document.querySelector('a[download]').href).then((answer) => answer.json())")
        if not otlp["resourceSpans"]:
            raise Failed(f"the OTLP JSON has no spans: {otlp}")
        self.trace("missing.jpg")
        self.says("! 404", "✕ failed", "the source does not exist")
        self.shot("missing")
        self.trace("notes.txt")
        self.says("! 422", "✕ failed")
        self.trace("elsewhere.png")
        self.says("✕ failed 502", "the source's redirect is not followed")
        self.trace("slow.png")
        self.says("cancelled", "downloading_image")
        self.shot("cancelled")
        self.proxy.get("rs:force:200:200/f:png", "rocket.jpg", traceparent=f"00-{UPSTREAM}-00f067aa0ba902b7-01")
        self.trace(UPSTREAM)
        self.says(UPSTREAM, "rs:force:200:200")
        self.browser.open(f"{self.address}?trace={'0' * 31}1")
        self.says("Not held")
        self.expect_complaints("api/traces/")

    def search(self):
        """search and filters are in the address, and the way back works"""
        self.open()
        self.browser.until(f"{ROWS}.length > 5")
        self.browser.key("/")
        self.browser.type("missing.jpg")
        self.browser.until(f"location.search === '?q=missing.jpg' && [...{ROWS}].every((row) => row.textContent.includes('missing.jpg'))")
        self.browser.js("[...document.querySelectorAll('.choice a')].find((a) => a.textContent.includes('cancelled')).click()")
        self.says("No held trace is like this.")
        self.shot("nothing", False)
        self.browser.js("history.back()")
        self.browser.until(f"location.search === '?q=missing.jpg' && {ROWS}.length")
        self.browser.js("history.back()")
        self.browser.until(f"location.search === '' && document.getElementById('q').value === '' && {ROWS}.length > 5")

    def grid(self):
        """a cell of the grid filters the list by route, outcome and latency"""
        self.open()
        self.browser.js("document.querySelector('.grid a.failed').click()")
        self.browser.until("/route=.*outcome=failed&band=[0-8]/.test(location.search)")
        count = int(self.browser.js("document.querySelector('.grid [aria-current]').textContent"))
        self.browser.until(f"{ROWS}.length === {count} && [...{ROWS}].every((row) => row.textContent.includes('✕ failed'))")
        self.shot("grid", False)

    def keyboard(self):
        """j, k, Enter, Esc and ? do what the help says, and the focus is seen"""
        self.open("?outcome=ok")
        self.browser.until(f"{ROWS}.length > 3")
        for key in "jjk":
            self.browser.key(key)
        self.browser.until(f"document.activeElement === {ROWS}[0]")
        if self.browser.js("getComputedStyle(document.activeElement).outlineStyle") == "none":
            raise Failed("the focus is not seen")
        first = self.browser.js("document.activeElement.closest('li').dataset.key")
        self.browser.key("Enter")
        self.browser.until(f"location.search.includes('trace={first}') && document.querySelector('#trace .span')")
        self.browser.key("j")
        self.browser.until(f"location.search.includes('trace=') && !location.search.includes('{first}')")
        self.browser.key("k")
        self.browser.until(f"location.search.includes('trace={first}')")
        self.browser.key("Escape")
        self.browser.until(f"location.search === '?outcome=ok' && document.activeElement.closest('li').dataset.key === '{first}'")
        self.browser.key("?")
        self.browser.until("document.querySelector('dialog').open")
        self.shot("help", False)
        self.browser.key("Escape")
        self.browser.until("!document.querySelector('dialog').open")

    def hostile(self):
        """markup in paths, queries and headers stays text"""
        # The service decodes its options, and says them in its error.
        markup = urllib.parse.quote(MARKUP)
        path = f"/resize/{markup}/plain/x?{markup}"
        self.proxy.hostile(path, user_agent=MARKUP, traceparent=f"00-{UPSTREAM[::-1]}-00f067aa0ba902b7-01")
        elements = self.browser.js("document.querySelectorAll('img, svg, script').length")
        self.trace(UPSTREAM[::-1])
        self.browser.js("document.querySelectorAll('.span summary').forEach((summary) => summary.click())")
        self.says(MARKUP, "user_agent.original", "exception.message")
        if self.browser.js("document.querySelectorAll('img, svg, script').length") != elements or self.browser.dialogs:
            raise Failed("text of a request has become markup")
        self.shot("hostile")

    def narrow(self):
        """360 pixels are enough for each view"""
        self.browser.size(360, 780)
        for name, query in (("list", ""), ("trace", f"?trace={UPSTREAM}"), ("hostile", f"?trace={UPSTREAM[::-1]}")):
            self.open(query)
            self.browser.until(f"document.querySelector('#trace .span') || {ROWS}.length")
            width = self.browser.js("document.documentElement.scrollWidth")
            self.shot(f"narrow-{name}", False)
            if width > 360:
                raise Failed(f"{name} is {width} pixels wide")
        self.browser.open(self.proxy.address + "/")
        self.browser.until("document.querySelectorAll('figure a').length > 8")
        if self.browser.js("document.documentElement.scrollWidth") > 360:
            raise Failed("the gallery is too wide")
        self.browser.until("document.querySelectorAll('figure.failed').length === 3")
        self.expect_complaints("missing.jpg", "notes.txt", "elsewhere.png")
        self.browser.size(1280, 900)

    def dark(self):
        """dark is as the system says, or as the reader does"""
        background = "getComputedStyle(document.body).backgroundColor"
        self.open()
        light = self.browser.js(background)
        self.browser.media(prefers_color_scheme="dark")
        self.browser.until(f"{background} !== '{light}'")
        self.browser.until(f"{ROWS}.length > 3")
        self.shot("dark", False)
        self.browser.js("document.getElementById('theme').click()")
        self.browser.until(f"{background} === '{light}'")
        self.browser.media(prefers_color_scheme="light")
        self.browser.js("document.getElementById('theme').click()")
        self.browser.until(f"{background} !== '{light}'")
        self.browser.js("document.getElementById('theme').click()")

    def foreign(self):
        """nothing is asked of another host, nothing is complained of, and the page has at most 60 kB"""
        size = sum(file.stat().st_size for file in (ROOT / "src/page/assets").iterdir())
        if size > 60_000:
            raise Failed(f"the page has {size} bytes")
        hosts = {urllib.parse.urlsplit(url).netloc for url in self.browser.requests if url.startswith("http")}
        others = {host for host in hosts if not re.fullmatch(r"127\.0\.0\.1:\d+", host)}
        if others or self.browser.complaints:
            raise Failed(f"other hosts: {others}, complaints: {self.browser.complaints}")
        with OPENER.open(self.address) as answer:
            policy = answer.headers["Content-Security-Policy"]
        if "default-src 'none'" not in policy or "unsafe" in policy:
            raise Failed(f"the policy is {policy}")

    def cut(self):
        """the page says that the service is gone, and connects when it is there again"""
        self.open()
        self.proxy.close()
        self.browser.until("document.body.classList.contains('stale') && !document.getElementById('cut').hidden")
        self.says("The service does not answer")
        self.shot("cut", False)
        self.proxy.start(self.proxy.address.rpartition(":")[2])
        self.browser.until("document.querySelector('#live.live') && document.getElementById('cut').hidden")
        self.says("No requests yet.")

    def expect_complaints(self, *parts):
        """The browser says of each answer with 4xx that it failed. These are expected, and forgotten."""
        self.browser.complaints = [told for told in self.browser.complaints if not any(part in told for part in parts)]

    def picture(self, target):
        """Writes what the page shows of the demo's requests."""
        for _ in range(2):
            self.proxy.get("rs:fit:300:200/f:jpg", "chelsea.png")
        self.proxy.get("rs:fit:300:200", "notes.txt")
        self.browser.open(self.proxy.address + "/")
        self.browser.until("document.querySelectorAll('figure a').length > 11")
        with self.proxy.hang():
            time.sleep(0.5)
        self.proxy.get("rs:force:200:200/f:png", "rocket.jpg")
        with self.proxy.hang():
            self.browser.size(1280, 800)
            self.open()
            time.sleep(2)
            self.shot("picture", False)
        palette.write(self.shots / "picture.png", target)


if __name__ == "__main__":
    main()
