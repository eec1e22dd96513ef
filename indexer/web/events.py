"""Tells every open page that a sync has committed: one watcher for the process, server-sent events for its clients."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from indexer.errors import IndexerError
from indexer.queries.freshness import freshness
from indexer.web.desk import Desk

POLL_SECONDS = 1.0
#: a proxy between ends a connection on which nothing comes
KEEP_ALIVE_SECONDS = 15.0
#: how soon a browser comes back after the connection broke
RETRY_MS = 2_000


class Bell:
    """Rings for all clients when the file has changed."""

    def __init__(self, desk: Desk, *, keep_alive: float = KEEP_ALIVE_SECONDS) -> None:
        self.desk, self.keep_alive = desk, keep_alive
        self.number, self.message = 0, ""
        #: how many pages listen
        self.clients = 0
        #: whether the server is about to end, so that no client keeps it
        self.ending: Callable[[], bool] = lambda: False
        self._rung = asyncio.Event()

    async def watch(self) -> None:
        """Looks at the file once a second, for as long as the server runs."""
        seen: Any = await run_in_threadpool(self._look)
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = await run_in_threadpool(self._look)
            if now != seen:
                seen = now
                self.message = json.dumps(await run_in_threadpool(self._told))
                self.number += 1
                rung, self._rung = self._rung, asyncio.Event()
                rung.set()

    def _look(self) -> Any:
        try:
            return self.desk.version()
        except IndexerError as error:
            return str(error)

    def _told(self) -> dict[str, Any]:
        """The newest block, and that of each deployment; or why the file cannot be read."""
        try:
            with self.desk.read() as conn:
                rows = freshness(conn)
        except IndexerError as error:
            return {"block": None, "deployments": {}, "error": str(error)}
        blocks = {row.deployment: row.block_number for row in rows}
        return {"block": max(filter(None, blocks.values()), default=None), "deployments": blocks, "error": None}

    async def stream(self, _request: Request) -> StreamingResponse:
        """The response of `/events`; it ends with its client."""
        return StreamingResponse(self._events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def _events(self) -> AsyncIterator[str]:
        self.clients += 1
        loop = asyncio.get_running_loop()
        try:
            yield f"retry: {RETRY_MS}\n\n"
            told, due = self.number, loop.time() + self.keep_alive
            while not self.ending():
                rung = self._rung
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(POLL_SECONDS, max(due - loop.time(), 0.01))):
                        await rung.wait()
                if self.number != told:
                    told, due = self.number, loop.time() + self.keep_alive
                    yield f"event: snapshot\nid: {told}\ndata: {self.message}\n\n"
                elif loop.time() >= due:
                    due = loop.time() + self.keep_alive
                    yield ": nothing new\n\n"
        finally:
            self.clients -= 1
