"""The pages an end user sees: plain words for each outcome, and what to do next. Every text is ours or the operator's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gateway import ids
from gateway.connect.outcomes import Kind, Offer, Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one page says."""

    status: int
    heading: str
    says: tuple[str, ...] = ()
    button: str | None = None  # a POST
    action: str | None = None  # where to; None: where the page came from
    back: str | None = None
    back_as: str = "Back to the app"
    code: str | None = None
    listed: tuple[str, ...] = ()
    listed_as: str = ""
    listed_open: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """Of one kind of outcome; {title} stands for the provider."""

    status: int
    heading: str
    says: tuple[str, ...]
    again: bool = False  # a button to begin once more, where the session allows it


WORDS: dict[Kind, Words] = {
    "connected": Words(
        200, "Your {title} account gave its permission",
        ("Go back to the app that sent you here: it finishes the connection.", "You may close this window."),
    ),
    "scopes_missing": Words(
        200, "Some permissions are missing",
        (
            "You connected your {title} account, but did not give every permission that the app needs.",
            "Go on to the app: it can ask you for the missing ones.",
        ),
    ),
    "denied": Words(
        200, "The account was not connected",
        ("No permission was given at {title}, so nothing was connected and nothing has changed.",), again=True,
    ),
    "awaits_approval": Words(
        200, "Somebody has to approve it first",
        (
            "Your request was sent, and nothing is connected yet: at {title} an owner of the organization has to approve it.",
            "When that is done, go back to the app and start again.",
        ),
    ),
    "wrong_account": Words(
        403, "That is another account",
        (
            "The app wants to reconnect one {title} account, and you signed in to {title} with another one.",
            "Nothing has changed. Sign in to {title} with the account that was connected before, then try again.",
        ),
        again=True,
    ),
    "provider_error": Words(
        502, "{title} did not answer as it should",
        ("Nothing was connected. This is often over in a moment: try again, or go back to the app.",), again=True,
    ),
    "misconfigured": Words(
        502, "The app is not set up correctly",
        ("{title} does not accept the app's request. You can do nothing about that: please tell the app's support.",),
    ),
    "expired": Words(
        410, "This link has expired",
        ("Links to connect an account work for a few minutes only. Go back to the app and start again.",),
    ),
    "used": Words(
        410, "This link was already used",
        ("Each link works once, in one browser. Go back to the app and start again.",),
    ),
    "unknown": Words(
        404, "This link does not work",
        ("It is not a link of ours, or it is incomplete. Go back to the app and start again.",),
    ),
    "other_browser": Words(
        403, "Started in another browser",
        (
            "This was begun in another browser, or cookies are switched off. Nothing was connected.",
            "Open the link from the app in the browser in which you want to go on, and allow cookies for this page.",
        ),
    ),
    "refused": Words(
        400, "This step cannot be taken",
        (
            "It was taken before, has expired, or does not belong to a connection that was started here.",
            "Nothing was connected by it. Go back to the app and start again.",
        ),
        again=True,
    ),
    "unavailable": Words(
        503, "Not available just now", ("Something does not work on our side. Please try again in a minute.",),
    ),
}  # fmt: skip


def told(outcome: Told) -> Page:
    """The page of an outcome."""
    words, title = WORDS[outcome.kind], outcome.title or "The provider"
    again = words.again and outcome.session is not None
    return Page(
        status=words.status,
        heading=words.heading.format(title=title),
        says=tuple(sentence.format(title=title) for sentence in words.says),
        button="Try again" if again else None,
        action=f"/connect/{ids.show(ids.SESSION, outcome.session)}" if again and outcome.session else None,
        back=outcome.back,
        back_as="Go on to the app" if outcome.kind == "scopes_missing" else "Back to the app",
        code=outcome.code,
        listed=outcome.missing,
        listed_as="Missing permissions",
        listed_open=True,
    )


def offered(offer: Offer) -> Page:
    """The page behind a link."""
    title, steps = offer.title, offer.consents
    verb = "Reconnect" if offer.reconnects else "Connect"
    return Page(
        status=200,
        heading=f"{verb} your {title} account",
        says=(
            f"You are taken to {title}, where you sign in and choose what the app may do."
            + (f" {title} will ask you {steps} times." if steps > 1 else ""),
            "Go on only if you started this yourself, in an app that you use.",
        ),
        button=f"Continue to {title}",
        listed=offer.scopes,
        listed_as="What will be asked for",
    )


def rendered(page: Page, nonce: str) -> bytes:
    """As HTML, everything escaped. `nonce`: of the Content-Security-Policy that goes with it."""
    text: str = _template().render(page=page, nonce=nonce)
    return text.encode("utf-8", "replace")


@cache
def _template():  # type: ignore[no-untyped-def]
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True)
    return environment.from_string((files(__name__.rpartition(".")[0]) / "page.html.j2").read_text(encoding="utf-8"))
