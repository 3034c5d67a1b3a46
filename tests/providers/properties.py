"""What hypothesis draws in these tests: header values and bodies that nobody should send, and some do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# No deadline: the machine's load is not under test. No database: a run writes nothing into the repository.
PROPERTY = settings(deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])

# Anything that HTTP can carry in a value, decoded as latin-1; and what parsers of numbers and lists stumble over.
header_values = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=100),
    st.sampled_from(
        [
            *("", " ", ",", "=", ";", ".", "t=", "t=,v1=", "v1", "v1,", ",,,,", "v0=", "sha256=", "Bearer", "Bearer "),
            *("0", "-1", "+5", "007", "1_000", "1e9", "1.5", "0x10", " 12", "12 ", "²", "nan", "inf", "9" * 400),
            *(
                "v1a,AAAA",
                "v1," + "A" * 43 + "=",
                "v0=" + "é" * 64,
                "t=1,t=2,v1=" + "0" * 64,
                "\x00",
                "\x85",
                "ÿ" * 20_000,
            ),
        ]
    ),
)

content_types = st.one_of(
    st.none(),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded", "Application/JSON ; charset=utf-8"]),
    st.sampled_from(["application/cloudevents+json", "text/plain", "multipart/form-data; boundary=x"]),
    header_values,
)

_words = st.sampled_from(
    [
        *(
            "type",
            "event",
            "action",
            "team_id",
            "enterprise_id",
            "authorizations",
            "user_id",
            "is_bot",
            "tokens",
            "oauth",
        ),
        *("token", "challenge", "event_id", "event_time", "team", "user", "id", "payload", "trigger_id", "team_ids"),
        *("installation", "account", "organization", "repository", "owner", "sender", "object", "created", "context"),
        *("value", "clientState", "subscriptionId", "lifecycleEvent", "resource", "validationTokens", "tenantId"),
        *("message", "data", "messageId", "publishTime", "attributes", "subscription", "emailAddress", "historyId"),
        *("portalId", "subscriptionType", "eventId", "occurredAt", "appId", "project", "object_kind", "project_id"),
        *("event_callback", "url_verification", "app_rate_limited", "tokens_revoked", "team_access_revoked"),
        *(
            "plainToken",
            "event_ts",
            "host_id",
            "account_id",
            "deauthorization_time",
            "download_token",
            "app_deauthorized",
        ),
        *(
            "webhookTimestamp",
            "organizationId",
            "oauthClientId",
            "userId",
            "createdAt",
            "myshopify_domain",
            "shop_domain",
        ),
        *("v2.core.event", "minute_rate_limited", "timestamp", "is_enterprise_install", "actions", "action_ts"),
        *("bot", "sender", "suspended_at", "livemode", "event_time"),
    ]
)
_odd_texts = st.sampled_from(["", "\x00", "\ud83d", "a b", "x" * 300, "é", "../..", "T1", "[DONE]", "\u202e", "1" * 30])
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _odd_texts, _words
)
json_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_words, inner, max_size=6)),
    max_leaves=25,
)


def _as_json(value: Any, separators: tuple[str, str]) -> bytes:
    return json.dumps(value, separators=separators, ensure_ascii=False).encode("utf-8", "surrogatepass")


bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(_as_json, json_values, st.sampled_from([(",", ":"), (" , ", "\n:\t")])),
    st.builds(lambda value: b"payload=" + json.dumps(value).encode(), json_values),
    st.sampled_from([b"", b"null", b"[]", b"{}", b"[" * 5000, b'{"a":' * 2000, b'{"a":1', b"\xef\xbb\xbf{}"]),
    st.sampled_from(
        [b"1" * 5000, b"NaN", b'"\\ud83d"', b"payload=", b"payload", b"&&=&", b"payload=%", b"payload=%7B%7D"]
    ),
)
