"""The server: who may read what."""

from __future__ import annotations

import socket

import pytest
from served import served
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kdsweep.errors import InputError
from kdsweep.serving.server import listen

TOKEN = "correcthorsebattery"
SAID = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("said"))])


@pytest.fixture(scope="module")
def client():
    with served(SAID) as client:
        yield client


def test_it_reads_on_loopback_without_a_token(client):
    status, headers, body = client.get("/page")
    assert (status, body) == (200, "said")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "169.254.169.254", ""]
)
def test_unknown_hosts_are_refused(client, host):
    status, _, body = client.get("/", Host=host)
    assert status == 400
    assert "said" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:80"])
def test_names_of_loopback_are_accepted(client, host):
    assert client.get("/", Host=host)[2] == "said"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_allowed(client, method):
    assert client.get("/", method=method)[0] == 405


def test_with_a_token_every_request_needs_it():
    with served(SAID, token=TOKEN) as client:
        refused = [
            client.get("/"), client.get("/?token="), client.get("/?token=wrong"), client.get(f"/?token={TOKEN}x"),
            client.get("/", Authorization="Bearer wrong"), client.get("/", Authorization=f"Basic {TOKEN}"),
            client.get("/", Cookie=f"kdsweep-token-1={TOKEN}"),
        ]  # fmt: skip
        assert [status for status, _, _ in refused] == [401] * 7
        assert all("said" not in body for _, _, body in refused)
        assert client.get("/", Authorization=f"Bearer {TOKEN}")[2] == "said"


def test_the_token_of_the_address_becomes_a_cookie_and_leaves_the_address():
    with served(SAID, token=TOKEN) as client:
        status, headers, _ = client.get(f"/sweeps/one/?token={TOKEN}&have=3")
        assert (status, headers["location"]) == (303, "/sweeps/one/?have=3")
        cookie, _, attributes = headers["set-cookie"].partition(";")
        assert "HttpOnly" in attributes
        assert client.get("/", Cookie=cookie)[2] == "said"
        assert client.endpoint.url == f"http://127.0.0.1:{client.endpoint.port}/?token={TOKEN}"


def test_a_redirect_stays_on_the_server():
    with served(SAID, token=TOKEN) as client:
        _, headers, _ = client.get(f"//evil.example/?token={TOKEN}")
    assert headers["location"].startswith("/")
    assert not headers["location"].startswith("//")


def test_an_address_that_others_reach_needs_a_token():
    with pytest.raises(InputError, match=r"--host 0\.0\.0\.0: others could read the sweep; accepted: 127\.0\.0\.1, or"):
        listen("0.0.0.0", 0, "")
    with served(SAID, host="0.0.0.0", token=TOKEN) as client:
        assert client.get("/")[0] == 401
        assert client.get("/", Authorization=f"Bearer {TOKEN}", Host=socket.gethostname())[2] == "said"
        assert client.get("/", Authorization=f"Bearer {TOKEN}", Host="evil.example")[0] == 400


@pytest.mark.parametrize("token", ["short", "with space", "with&amp", "ünïcödeünïcöde"])
def test_a_token_that_is_too_short_or_does_not_fit_an_address_is_refused(token):
    with pytest.raises(InputError, match="accepted: at least 8 letters and digits"):
        listen("127.0.0.1", 0, token)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, "256.1.1.1", "x\0y"])
def test_a_host_that_is_not_one_is_refused_in_one_line(host):
    with pytest.raises(InputError, match="accepted: an address or a name of this machine") as refused:
        listen(host, 0, "")
    assert "\n" not in str(refused.value)


def test_a_port_in_use_is_refused_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: in use; accepted: a free port, or 0"):
            listen("127.0.0.1", port, "")
