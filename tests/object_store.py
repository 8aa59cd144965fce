"""A real S3 protocol server on loopback."""

from __future__ import annotations

import logging
import warnings

import pytest

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1",
}


class Bucket:
    """A bucket of the server.

    Attributes:
        uri: Its URI.
        environment: The variables by which a process finds the server.
    """

    def __init__(self, uri: str, environment: dict[str, str]):
        self.uri = uri
        self.environment = environment

    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def put(self, key: str, content: bytes) -> str:
        self.client().put_object(Bucket="sweeps", Key=key, Body=content)
        return f"{self.uri}/{key}"

    def read(self, key: str) -> bytes:
        return self.client().get_object(Bucket="sweeps", Key=key)["Body"].read()

    def listed(self) -> list[str]:
        listed = self.client().list_objects_v2(Bucket="sweeps")
        return sorted(one["Key"] for one in listed.get("Contents", ()))


class Server:
    """The server. What it keeps is in memory, and outlives a restart."""

    def __init__(self) -> None:
        self._server = self._started(0)
        self.host, self.port = self._server.get_host_and_port()

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = self._started(self.port)

    def _started(self, port: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from moto.server import ThreadedMotoServer

            logging.getLogger("werkzeug").setLevel(logging.ERROR)
            server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
            server.start()
        return server


@pytest.fixture(scope="session")
def server():
    """A server that can be restarted."""
    pytest.importorskip("moto")
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(server):
    """The address of the server."""
    return server.address


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """An empty bucket; the cache of fetched objects is in the test's directory."""
    environment = VARIABLES | {"AWS_ENDPOINT_URL": s3_server, "KDSWEEP_CACHE": str(tmp_path / "cache")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket("s3://sweeps", environment)
    client = bucket.client()
    client.create_bucket(Bucket="sweeps")
    forget()
    yield bucket
    for key in bucket.listed():
        client.delete_object(Bucket="sweeps", Key=key)
    client.delete_bucket(Bucket="sweeps")
    forget()


def forget() -> None:
    """Let this process open all stores anew, with the present variables and cache."""
    from kdsweep.storage import bucket, fetched, following, mirror, streamed

    for known in (fetched._copied, streamed._listed, bucket.bucket, mirror.mirror_of):
        known.cache_clear()
    following._FOLLOWERS.clear()
