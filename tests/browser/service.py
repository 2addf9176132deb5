"""Runs an example of the crate, and asks it for pictures as clients do."""

import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request

# A proxy of the environment is not asked.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service:
    """An example that runs until it is closed."""

    def __init__(self, program, log):
        self.program, self.log = program, log
        self.start("0")

    def start(self, port):
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [self.program, "--port", port], stdout=output, stderr=output,
                env={**os.environ, "OTEL_SERVICE_NAME": pathlib.Path(self.program).name})
        deadline = time.monotonic() + 60
        while not self.addresses():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program} has not started:\n{self.said()}")
            time.sleep(0.05)
        self.address = self.addresses()[0]

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def addresses(self):
        """The addresses of the line that says where it listens."""
        line = re.search(r"^(Listening on )?http://.*\n", self.said(), re.MULTILINE)
        return re.findall(r"http://[0-9.]+:[0-9]+", line[0]) if line else []

    def close(self):
        self.process.terminate()
        self.process.wait()


class ImageProxy(Service):
    """The image service, which names its own address and that of the sample pictures."""

    def path(self, options, picture):
        return f"/resize/{options}/plain/{self.addresses()[1]}/{picture}"

    def get(self, options, picture, **headers):
        """The status of the answer."""
        request = urllib.request.Request(self.address + self.path(options, picture), headers=headers)
        try:
            with OPENER.open(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def hang(self, **headers):
        """Asks for a picture whose source does not answer. Closing the connection cancels the request."""
        host, port = self.address.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)))
        lines = [f"GET {self.path('rs:fit:300:200', 'slow.png')} HTTP/1.1", f"Host: {host}:{port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def hostile(self, path, **headers):
        """Asks for a path as it is."""
        host, port = self.address.removeprefix("http://").split(":")
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            while connection.recv(65536):
                pass
