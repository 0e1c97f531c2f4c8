"""What strangers can start, bounded: work, and bytes that are held for clients.

Work does not run on the event loop, but in the few threads of a :class:`~api.http.work.pool.Pool`, with a
bounded queue and a deadline: searches that scan, images, map tiles, aggregations, generated documents. So
``threads`` pieces run, ``waiting`` wait, and further requests are refused with 503 at once. A client that
leaves takes its request out of the queue. A piece that runs cannot be stopped from outside: it looks at its
:class:`~api.http.work.waiting.Deadline` between reads, and keeps its place until it has ended.

Threads share the interpreter with the searches of everybody else, and cannot be ended. So ``tessera-stac
serve`` has what takes long answered by other processes (:class:`~api.http.work.relay.Relay`), which yield
the processor, and are killed where a request in them does not end.

Responses, and request bodies, beyond a few kilobytes are counted from when they are in memory until the
client has read them (:class:`~api.http.work.flight.Flight`). Beyond the budget further ones get 503, and the
clients that have read nothing for longest are dropped, so that the next request finds room.
"""
