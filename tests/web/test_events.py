"""Live updates over real connections: who listens hears of a commit by another process, and leaves nothing behind."""

import asyncio
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn

from indexer.web.app import application
from indexer.web.desk import Desk
from indexer.web.events import Bell
from indexer.web.serve import listening, server_of

CLIENTS = 100
#: a commit is told within 3 s; twice that, as the machine may be busy
DEADLINE = 6.0


class Running:
    """A server on a free port, and its bell."""

    def __init__(self, desk: Desk, listener: socket.socket, keep_alive: float) -> None:
        self.bell = Bell(desk, keep_alive=keep_alive)
        self.port = listener.getsockname()[1]
        self.server: uvicorn.Server = server_of(application(desk, bell=self.bell))
        self.bell.ending = lambda: self.server.should_exit
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "open connections keep the server"


@pytest.fixture
def running(desk: Desk) -> Iterator[Running]:
    with listening("127.0.0.1", 0) as listener:
        found = Running(desk, listener, keep_alive=0.3)
        found.thread.start()
        wait_for(lambda: found.server.started)
        yield found
        found.end()


def wait_for(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def commit(database: Path, block: int) -> None:
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute("update deployments set block_number = ?", (block,))


async def heard(port: int, ready: asyncio.Barrier, sees: Callable[[str], bool]) -> str:
    """What a client has read when it sees what it waits for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n")
    text = ""
    try:
        while "retry:" not in text:
            text += (await reader.read(4096)).decode()
        await ready.wait()
        async with asyncio.timeout(DEADLINE):
            while not sees(text):
                text += (await reader.read(4096)).decode()
    finally:
        writer.close()
    return text


def test_a_hundred_pages_hear_of_a_commit_and_leave_nothing_behind(running: Running, database: Path) -> None:
    async def all_of_them() -> list[str]:
        ready = asyncio.Barrier(CLIENTS + 1)
        clients = [
            asyncio.create_task(heard(running.port, ready, lambda text: "data:" in text)) for _ in range(CLIENTS)
        ]
        await ready.wait()
        assert running.bell.clients == CLIENTS
        await asyncio.to_thread(commit, database, 2_000)
        return await asyncio.gather(*clients)

    for text in asyncio.run(all_of_them()):
        assert "text/event-stream" in text
        data = json.loads(text.split("event: snapshot")[1].split("data: ")[1].split("\n")[0])
        assert data["block"] == 2_000
        assert data["error"] is None
        assert set(data["deployments"].values()) == {2_000}
    wait_for(lambda: running.bell.clients == 0)


def test_a_line_comes_where_nothing_happens(running: Running) -> None:
    text = asyncio.run(heard(running.port, asyncio.Barrier(1), lambda text: ": nothing new" in text))
    assert "event:" not in text


@pytest.mark.slow
def test_a_replaced_file_is_told_and_shown(running: Running, database: Path) -> None:
    """Another file under the same name: the old one's inode must not go on being read."""

    async def replaced() -> str:
        def swap() -> None:
            new = database.with_name("new.db")
            with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(new)) as conn:
                old.backup(conn)
                with conn:
                    conn.execute("update deployments set block_number = 7777")
            for name in ("-wal", "-shm"):
                database.with_name(database.name + name).unlink(missing_ok=True)
            new.replace(database)

        ready = asyncio.Barrier(2)
        client = asyncio.create_task(heard(running.port, ready, lambda text: "7777" in text))
        await ready.wait()
        await asyncio.to_thread(swap)
        return await client

    assert "7777" in asyncio.run(replaced())
    seen = running.bell.number
    commit(database, 7_778)  # the new file is the one that is watched from now on
    wait_for(lambda: running.bell.number > seen)


def test_the_server_ends_while_pages_listen(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_for(lambda: running.bell.clients == 1)
        running.end()
