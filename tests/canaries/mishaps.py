"""What goes wrong inside: faults of our own, a database that is away, a Vault that says our login back, commands."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import cli, listen
from gateway.access import keys
from gateway.connect.flow import Flow
from gateway.outbound import Outbound
from gateway.settings import Settings
from gateway.tokens.spooled import Entry
from gateway.vault.openbao import OpenBao
from gateway.vault.tokens import Place
from gateway.web import hooks
from providers.calls import Request
from providers.errors import ProviderError
from providers.oauth import TokenSet
from tests import postgres
from tests.canaries.acts import Story
from tests.serving import serving
from tests.stream.making import until


@contextmanager
def broken(secret: str, *places: tuple[Any, str]) -> Iterator[None]:
    """These functions of ours have a fault that quotes `secret`, and all that they were handed, in its error's text."""

    def quoting(*handed: Any, **more: Any) -> None:
        parts = [getattr(one, name, "") for one in handed for name in ("url", "headers", "body", "delivery")]
        raise RuntimeError(f"{secret} {handed} {more} {parts}")

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, quoting)
        yield


async def faults(story: Story, token: str) -> None:
    """500 and 503, and nothing of the error's text: at routes, pages, hooks and behind them."""
    made, mine, town = await story.town.ask(), story.town.browser(), story.town
    back = await town.provider.consent(await town.press(made, mine))
    expired = await story.imported()
    with broken(story.town.api.admin, (keys, "page"), (Flow, "look"), (hooks, "take"), (Outbound, "send")):
        assert (await town.api("GET", "/v1/keys")).status_code == 500
        assert (await mine.get(f"{story.public}/connect/{story.ascii('link token')}")).status_code == 500
        assert (await mine.get(back)).status_code == 500
        assert (await town.api("GET", f"{expired}/token")).status_code >= 500
        assert (await delivered(story, token)).status_code == 503


async def delivered(story: Story, token: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        story.town.ear.listen(http)
        return await http.post(f"{story.public}/hooks/gitlab", content=b"{}", headers={"x-gitlab-token": token})


async def database_away(story: Story, template: postgres.Template, settings: Settings, token: str) -> None:
    """Refused, with all connections cut: 503 everywhere, and in again by itself."""
    assert settings.database_url is not None
    town, name = story.town, urlsplit(settings.database_url.get_secret_value()).path.lstrip("/")
    path, mine = await story.imported(), town.browser()
    page = await mine.get((await town.ask())["url"])
    await template.server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await template.server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608 - our own name
    )
    try:
        answers = await asyncio.gather(
            town.api("GET", f"{path}/token"), mine.press(page), delivered(story, token),
            town.api("POST", "/v1/connections/import", {"connections": [story.line()]}),
            town.api("POST", "/v1/keys", {"name": "x"}, headers={"idempotency-key": story.ascii("idempotency key")}),
        )  # fmt: skip
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {503}, codes
    finally:
        await template.server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    async def back() -> bool:
        return (await town.api("GET", "/v1/tenants/acme")).status_code == 200

    await until(back)


async def spooled(story: Story) -> None:
    """A token set that could not be written lies on the disk; one of two files there is damaged."""
    gateway = story.town.gateway
    access, refresh = story.ascii("spooled access token"), story.ascii("spooled refresh token")
    now, process = gateway.clock.now(), gateway.processes["default"].id
    for version in (1, 2):
        entry = Entry(
            place=Place("default", "acme", gateway.new_id(), "reader", 1, version), integration_id=gateway.new_id(),
            tokens=TokenSet(access_token=access, refresh_token=refresh), refresh_token=refresh, came_at=now,
            came_by_database=now, holder=process, fence=1, asked_s=0.0,
        )  # fmt: skip
        name = await gateway.spool.put(entry)
        assert name is not None
    files = {file: file.read_bytes() for file in gateway.settings.spool_folder.glob("*.spool")}
    for data in files.values():
        story.town.ear.note("a file of the spool", data)
    damaged = gateway.settings.spool_folder / name
    damaged.write_bytes(files[damaged][:-1])
    found = await gateway.spool.entries()
    story.town.ear.note("entries of the spool", repr(found).encode())
    assert (len(files), len(found)) == (2, 1)
    await gateway.spool.remove(found[0][0])


async def unreachable(story: Story) -> None:
    """Some providers' calls have the token in their URL: nobody is there, and the error, traceback and all, is ours."""
    secret = story.ascii("token in a URL")
    way = story.town.gateway.outbound.for_provider("sandbox", operator_hosts=("http://127.0.0.1:9",))
    for url in (
        f"http://127.0.0.1:9/{secret}?token={secret}",
        f"http://10.0.0.1/{secret}?token={secret}",
        f"no {secret}",
    ):
        try:
            await way.send(Request("GET", url, {"authorization": f"Bearer {secret}"}))
        except ProviderError as error:
            story.town.ear.note("an error of a call", "".join(traceback.format_exception(error)).encode())
        else:
            raise AssertionError("somebody answered")


async def vault_refuses(story: Story, settings: Settings) -> None:
    """It says our login back in its refusal."""
    async with repeating() as address:
        for more in ({"vault_role_id": "r", "vault_token": None}, {"vault_secret_id": None}):
            bao = OpenBao(settings.model_copy(update={"vault_addr": address, **more}), story.town.gateway.clock)
            try:
                await bao.open()
            except Exception as error:  # which one is another test's
                story.town.ear.note("an error of Vault's", "".join(traceback.format_exception(error)).encode())
            else:
                raise AssertionError("Vault took our login")
            finally:
                await bao.close()


@asynccontextmanager
async def repeating() -> AsyncIterator[str]:
    """The URL of a server that answers 400 to everything, with what it was sent."""

    async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] != "http":
            return
        body = repr(scope["headers"]).encode() + (await receive()).get("body", b"")
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    bound = listen.bind("127.0.0.1:0", "a Vault that repeats")
    async with serving(listen.server(app), bound) as url:
        yield url


async def commands(story: Story, settings: Settings, folder: Path) -> None:
    """What people see who run `posthouse`: fine, on a bad file, and with a database that nobody reaches."""
    assert settings.database_url is not None
    assert settings.keyring is not None
    bad = folder / "bad.jsonl"
    bad.write_text(
        '{"access_token": "' + story.secret("refused token") + '"\n{"tenant": ["' + story.secret("odd") + '"]}\n'
    )
    here = settings.database_url.get_secret_value()
    away = f"postgresql://posthouse:{story.ascii('DSN password')}@127.0.0.1:9/posthouse"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTHOUSE_KEYRING", settings.keyring.get_secret_value())
        patch.setenv("POSTHOUSE_HOME", str(folder))
        patch.setenv("POSTHOUSE_LOG_LEVEL", "debug")
        for dsn, expected, arguments in (
            (here, 0, ["integrations", "list"]), (here, 0, ["keys", "list"]), (here, 0, ["keyring", "status"]),
            (here, 1, ["connections", "import", str(bad)]), (here, None, ["doctor"]),
            (away, 1, ["keys", "list"]), (away, 1, ["doctor"]), (away.replace("postgresql", "odd"), 1, ["keys", "list"]),
        ):  # fmt: skip
            patch.setenv("POSTHOUSE_DATABASE_URL", dsn)
            status = await asyncio.to_thread(cli.run, arguments)
            assert expected in (None, status), (arguments, status)
