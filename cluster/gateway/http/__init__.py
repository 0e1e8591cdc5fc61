"""The HTTP gateway: scans in, images out, states, events and metrics; OpenAPI at `/openapi.json`.

Nothing of a scan's size is held in memory. Blocking calls run in threads; uploads and waiting clients have limits of
their own, so that neither can keep health checks and short questions waiting. A body of known length is read by its own
thread straight from the socket into the spool's receive buffer: through the event loop every byte would be copied four
times more, and a full disk would stop all other requests.
"""
