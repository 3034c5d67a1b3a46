"""What is said of whose grants, from the delivery to the signals: provider by provider, in the shapes they document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from providers.errors import Malformed
from providers.signals import Signal
from tests.providers.signal_samples import (
    COMMENT_DELETED,
    SAMPLES,
    SUSPENDED,
    Sample,
    github,
    github_installation,
    heard,
    microsoft,
    signals,
    slack,
    stripe,
    stripe_thin,
)
from tests.signers_b import microsoft_body, microsoft_change

THEN = datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC)  # `event_time` and `created` of the samples
TEAM = "T1DC2JH3J"


# Slack


def gone(reason: str, *accounts: str, profiles: tuple[str, ...] | None = None, at: datetime | None = THEN) -> Signal:
    knows = "nothing" if at is None else "time"
    return Signal(says="revoked", reason=reason, accounts=accounts, profiles=profiles, knows=knows, at=at)


def tokens_revoked(oauth: Any, bot: Any, **envelope: Any) -> Sample:
    lists = {name: value for name, value in (("oauth", oauth), ("bot", bot)) if value is not None}
    return slack({"type": "tokens_revoked", "tokens": lists}, **envelope)


USERS = gone("tokens_revoked", f"user:{TEAM}/U1", f"user:{TEAM}/U2", profiles=("user",))
BOT = gone("tokens_revoked", f"team:{TEAM}", profiles=("bot",))


@pytest.mark.parametrize(
    ("oauth", "bot", "told"),
    [
        (["U1", "U2"], None, [USERS]),
        (["U1", "U2", "U1"], [], [USERS]),
        (None, ["U2BOT"], [BOT]),
        ([], ["U2BOT", "U3BOT"], [BOT]),
        (["U1", "U2"], ["U2BOT"], [USERS, BOT]),
        ([], [], []),
        (None, None, []),
        ("U1", "U2BOT", []),  # shapes that Slack does not send
        ([None, {"id": "U1"}, "a b"], None, []),
    ],
)
def test_slacks_users_and_its_bot_are_told_apart(oauth: Any, bot: Any, told: list[Signal]) -> None:
    """Ids of users in both lists: the first are people, the second is the app itself, and no user of that id."""
    assert signals(tokens_revoked(oauth, bot)) == told


def authorized(**members: Any) -> list[dict[str, Any]]:
    known = {"enterprise_id": "E1", "team_id": None, "user_id": "U2BOT", "is_bot": True, "is_enterprise_install": True}
    return [{**known, **members}]


ORGANIZATION = {"team_id": TEAM, "enterprise_id": "E1", "authorizations": authorized()}


def test_tokens_of_an_organization_go_by_its_keys() -> None:
    """As `identify` made them: enterprise:E1 and user:E1/U1, whichever workspace it happened in."""
    assert signals(tokens_revoked(["U1"], ["U2BOT"], **ORGANIZATION)) == [
        gone("tokens_revoked", "user:E1/U1", profiles=("user",)),
        gone("tokens_revoked", "enterprise:E1", profiles=("bot",)),
    ]


@pytest.mark.parametrize(
    ("envelope", "account"),
    [
        ({}, f"team:{TEAM}"),
        ({"authorizations": None}, f"team:{TEAM}"),
        # a workspace of an organization that had an installation of its own: the organization's lives on
        ({"enterprise_id": "E1", "authorizations": []}, f"team:{TEAM}"),
        ({"enterprise_id": "E1", "authorizations": authorized(is_enterprise_install=False)}, f"team:{TEAM}"),
        # the organization's: what a workspace of it has by itself lives on
        (ORGANIZATION, "enterprise:E1"),
        ({"team_id": None, "enterprise_id": "E1", "authorizations": None}, "enterprise:E1"),
    ],
)
def test_uninstalling_from_a_workspace_and_from_an_organization(envelope: dict[str, Any], account: str) -> None:
    """All profiles of that installation, and of no other."""
    assert signals(slack({"type": "app_uninstalled"}, **envelope)) == [gone("app_uninstalled", account)]


def test_an_uninstallation_of_nobody_says_nothing() -> None:
    assert signals(slack({"type": "app_uninstalled"}, team_id=None, authorizations=None)) == []


def test_workspaces_that_an_organization_takes_an_app_from_are_asked() -> None:
    """Its own installation lives on; whether one of theirs went too is for a probe to say."""
    envelope = {"team_id": None, "enterprise_id": "E1", "authorizations": None}
    told = signals(slack({"type": "team_access_revoked", "team_ids": ["T1", "T2", None]}, **envelope))
    assert told == [gone("team_access_revoked", "team:T1", "team:T2", at=None)]
    assert signals(slack({"type": "team_access_revoked", "team_ids": []}, **envelope)) == []


@pytest.mark.parametrize("told", [None, "soon", [1], 1e40])
def test_without_a_time_a_revocation_is_contested(told: Any) -> None:
    (signal,) = signals(slack({"type": "app_uninstalled"}, event_time=told))
    assert (signal.says, signal.knows, signal.at) == ("revoked", "nothing", None)


# GitHub

AS_FORM = pytest.mark.parametrize("as_form", [False, True])
OURS = ("installation:957387",)


@AS_FORM
def test_a_revoked_authorization_ends_the_tokens_of_its_sender(as_form: bool) -> None:
    """Those that a consent brought: what is minted for an installation is none of that user's."""
    told = signals(github("github_app_authorization", action="revoked", as_form=as_form))
    assert told == [
        Signal(says="revoked", reason="authorization_revoked", accounts=("user:21031067",), kinds=("code",))
    ]


@AS_FORM
@pytest.mark.parametrize(
    ("action", "changed", "told"),
    [
        ("deleted", {}, Signal(says="revoked", reason="app_uninstalled", accounts=OURS, knows="final")),
        (
            "suspend",
            SUSPENDED,
            Signal(
                says="suspended",
                reason="app_suspended",
                accounts=OURS,
                knows="time",
                at=datetime(2026, 11, 23, 11, 58, tzinfo=UTC),
            ),
        ),
        ("suspend", {}, Signal(says="suspended", reason="app_suspended", accounts=OURS)),
        ("unsuspend", {}, Signal(says="resumed", reason="app_unsuspended", accounts=OURS)),
        (
            "new_permissions_accepted",
            {},
            Signal(says="scopes_changed", reason="permissions_accepted", accounts=OURS, kinds=("installation",)),
        ),
    ],
)
def test_what_befalls_an_installation(action: str, changed: dict[str, Any], told: Signal, as_form: bool) -> None:
    assert signals(github_installation(action, as_form=as_form, **changed)) == [told]


def test_another_event_under_the_header_of_an_installation_ends_nothing() -> None:
    """The header is not signed: a deleted comment, sent again as a deleted installation, would be proof for good."""
    assert (
        heard(Sample(provider="github", event="", body=COMMENT_DELETED, headers={"x-github-event": "issue_comment"}))
        == []
    )
    forged = Sample(provider="github", event="", body=COMMENT_DELETED, headers={"x-github-event": "installation"})
    with pytest.raises(Malformed):
        heard(forged)


@pytest.mark.parametrize("installation", [None, [], {}, {"id": 957387, "node_id": "MDIz"}, {"account": {"id": 3}}])
def test_an_installation_that_is_not_told_whole_is_malformed(installation: Any) -> None:
    with pytest.raises(Malformed):
        heard(github("installation", action="deleted", installation=installation))


def test_an_authorization_of_nobody_says_nothing() -> None:
    assert signals(github("github_app_authorization", action="revoked", sender=None)) == []


# Stripe

ACCOUNT = ("account:acct_1032D82eZvKYlo2C",)
DEAUTHORIZED = Signal(says="revoked", reason="deauthorized", accounts=ACCOUNT, knows="time", at=THEN)


def test_a_deauthorized_account_is_the_one_at_the_top() -> None:
    """`data.object` is our own application: a signal for it would end nothing, or somebody else's."""
    assert signals(stripe()) == [DEAUTHORIZED]
    assert signals(stripe(account=None)) == []
    assert signals(stripe(account={"id": "acct_1"})) == []


def test_a_thin_event_names_the_account_in_its_context() -> None:
    assert signals(stripe_thin()) == [DEAUTHORIZED]
    assert signals(stripe_thin(context="acct_5")) == [replace(DEAUTHORIZED, accounts=("account:acct_5",))]
    assert signals(stripe_thin(context=None, account="acct_6")) == []


@pytest.mark.parametrize("sample", [stripe, stripe_thin])
@pytest.mark.parametrize("members", [{"livemode": False}, {"livemode": None}, {"created": "soon"}])
def test_a_deauthorization_in_test_mode_or_without_a_time_is_contested(sample: Any, members: dict[str, Any]) -> None:
    """It comes to the same URL, signed by the same secret, and names an account whose real grant may live on."""
    assert signals(sample(**members)) == [replace(DEAUTHORIZED, knows="nothing", at=None)]


# Microsoft


@pytest.mark.parametrize(
    ("event", "reason"),
    [("reauthorizationRequired", "reauthorization_required"), ("subscriptionRemoved", "subscription_removed")],
)
def test_graphs_lifecycle_events_are_doubts(event: str, reason: str) -> None:
    """About whoever has the subscription: it is not an account, and its tenant is everybody's there."""
    assert signals(microsoft(event)) == [Signal(says="doubtful", reason=reason)]
    assert signals(microsoft(event, subscriptionId=None)) == []
    assert signals(microsoft("missed")) == []


def test_a_lifecycle_event_that_is_not_known_is_no_signal() -> None:
    """Nor is a resource that is called `lifecycle`."""
    assert heard(microsoft("somethingNew")) == []
    change = microsoft_change(resourceData=None, resource="lifecycle", changeType="reauthorizationRequired")
    assert heard(Sample(provider="microsoft", event="", body=microsoft_body(change))) == []


# The sandbox


def test_a_grant_revoked_at_the_sandbox_names_its_account() -> None:
    (sample,) = (one for one in SAMPLES if one.provider == "sandbox")
    assert signals(sample) == [Signal(says="revoked", reason="grant_revoked", accounts=("account:user-1",))]
    nobody = replace(sample, body=b'{"type":"grant.revoked","data":{}}')
    assert signals(nobody) == []
