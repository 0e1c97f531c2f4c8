"""The process that answers the requests which take long; see :mod:`api.http.work.relay`.

``python -m api.relayed N``: the application without its front, on connections that arrive on the socket with
the number N. It ends when that is closed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys

from starlette.types import Message

from api.app import create_app
from api.http.front import Front
from api.http.work.frames import read_frame, write_frame
from api.http.work.relay import READY
from api.http.work.waiting import ERROR_KEY
from api.readers.reader import ASKING, Reader
from api.settings import Settings

_NICE = 5
"""How much it yields the processor to the one that answers searches."""


async def _answer(front: Front, sock: socket.socket) -> None:
    """Answer the request on a connection."""
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        scope, body, (name, may_see) = await read_frame(reader)
        ASKING.set(Reader(name, may_see))
        left = asyncio.ensure_future(reader.read(1))  # nothing comes any more, until the client has left
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            message = next(messages, None)
            if message is None:
                await asyncio.wait([left])
                return {"type": "http.disconnect"}
            return message

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and ERROR_KEY in scope:
                message[ERROR_KEY] = scope[ERROR_KEY]
            await write_frame(writer, message)

        await front.let_in(scope, receive, send)
        left.cancel()
    except (EOFError, ConnectionError):
        pass  # the client has left
    finally:
        writer.close()


async def _serve(control: socket.socket) -> None:
    app = create_app(settings=Settings().model_copy(update={"refresh_seconds": 0.0}))
    loop, tasks, ended = asyncio.get_running_loop(), set[asyncio.Task[None]](), asyncio.Event()

    def arrived() -> None:
        try:
            said, numbers, _, _ = socket.recv_fds(control, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            said, numbers = b"", []
        for number in numbers:
            sock = socket.socket(fileno=number)
            sock.setblocking(False)
            task = asyncio.create_task(_answer(front, sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if not said:
            os._exit(0)  # whatever threads are in the middle of: nobody waits for it

    async with app.router.lifespan_context(app):
        front = Front.of(app)
        control.setblocking(False)
        loop.add_reader(control, arrived)
        control.send(READY)
        os.nice(_NICE)  # not before: somebody waits for it to start
        await ended.wait()


def main(number: str) -> None:
    """Answer requests until the socket is closed."""
    # The end of the server is the end of this process; its own would cut off what is being sent.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # as api.server does
    asyncio.run(_serve(socket.socket(fileno=int(number))))


if __name__ == "__main__":
    main(sys.argv[1])
