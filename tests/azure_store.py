"""A real Azure Blob protocol server on loopback: Microsoft's Azurite."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress

import pytest
from object_store import forget

PROGRAM = "azurite-blob"
# The account of every Azurite, whose key is public.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
URI = f"abfs://sweeps@{ACCOUNT}.dfs.core.windows.net"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory):
    """The address of the server."""
    if not (program := shutil.which(PROGRAM)):
        pytest.skip("Azurite is not installed: npm install --global azurite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]
    with (tmp_path_factory.mktemp("azurite") / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--disableTelemetry"], stdout=log, stderr=log)
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture
def container(azurite, monkeypatch, tmp_path):
    """An empty container, as the client of Azure's own SDK."""
    from azure.storage.blob import BlobServiceClient

    for name, value in {
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": azurite,
        "KDSWEEP_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    service = BlobServiceClient(f"{azurite}/{ACCOUNT}", credential=KEY, retry_total=1)
    client = service.get_container_client("sweeps")
    client.create_container()
    forget()
    yield client
    client.delete_container()
    client.close()
    forget()
