"""What a browser without JavaScript does with a consent page: fetch it, fill its form in, send it, see where it leads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import aiohttp


class PageError(AssertionError):
    """The page is not one that can be gone on from. Its text, for the test's reader."""


@dataclass(slots=True)
class Form:
    """A form as it stands on a page."""

    action: str = ""
    method: str = "get"
    fields: list[tuple[str, str]] = field(default_factory=list)  # as they would be sent without touching anything
    choices: dict[str, list[str]] = field(default_factory=dict)  # radio buttons and checkboxes by name
    buttons: dict[str, list[str]] = field(default_factory=dict)

    def filled(self, user: str, untick: Collection[str], decision: str) -> list[tuple[str, str]]:
        """What a person sends who picks `user`, unticks some scopes, and presses a button.    Raises: PageError."""
        if user not in self.choices.get("user", ()):
            raise PageError(f"the page offers no user {user}")
        if missing := set(untick) - set(self.choices.get("scope", ())):
            raise PageError(f"the page asks for no {missing}")
        if decision not in self.buttons.get("decision", ()):
            raise PageError(f"the page has no button {decision}")
        kept = [(n, v) for n, v in self.fields if n != "user" and not (n == "scope" and v in untick)]
        return [*kept, ("user", user), ("decision", decision)]


class Forms(HTMLParser):
    """The forms of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(told.get("action", ""), told.get("method", "get").lower()))
        if not self.found or not told.get("name"):
            return
        form, name, value = self.found[-1], told["name"], told.get("value", "")
        if tag == "button":
            form.buttons.setdefault(name, []).append(value)
        elif tag == "input" and told.get("type") in ("radio", "checkbox"):
            form.choices.setdefault(name, []).append(value)
            if "checked" in told:
                form.fields.append((name, value))
        elif tag == "input":
            form.fields.append((name, value))


async def consent(authorize_url: str, *, user: str = "user-1", untick: Collection[str] = (), deny: bool = False) -> str:
    """The callback URL that the user's browser is sent to in the end (nobody goes there yet).

    Raises: PageError, the provider shows something else than its consent page.
    """
    async with aiohttp.ClientSession() as browser:
        async with browser.get(authorize_url, allow_redirects=False) as shown:
            if shown.status in (302, 303, 307):
                return urljoin(authorize_url, shown.headers["location"])  # refused before anybody was asked
            html = await shown.text()
            forms = Forms(html).found
            if shown.status != 200 or len(forms) != 1 or forms[0].method != "post":
                raise PageError(f"{shown.status}: {html}")
        form = forms[0]
        sent = form.filled(user, untick, "deny" if deny else "allow")
        target = urljoin(authorize_url, form.action)
        async with browser.post(target, data=sent, allow_redirects=False) as decided:
            if decided.status not in (302, 303):
                raise PageError(f"{decided.status}: {await decided.text()}")
            return urljoin(authorize_url, decided.headers["location"])
