"""Runs a server in a thread, and reads from it as a client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager

from kdsweep.serving.server import listen, server_of

SECONDS = 60  # for a busy machine


class Client:
    def __init__(self, endpoint):
        self.endpoint = endpoint

    def get(self, path, method="GET", **headers):
        """Status, headers and body of a response; redirects are not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=SECONDS)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def json(self, path):
        status, _, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


@contextmanager
def served(app, host="127.0.0.1", token=""):
    endpoint = listen(host, 0, token)
    server = server_of(app, endpoint)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [endpoint.listener]})
    thread.start()
    try:
        yield Client(endpoint)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        endpoint.listener.close()
    assert not thread.is_alive()


def wait_for(call, condition):
    """Call until the condition holds, and return what it returned."""
    end = time.monotonic() + SECONDS
    while not condition(found := call()):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found
