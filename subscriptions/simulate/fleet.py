"""The description of a fleet: a TOML file that is judged whole before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.errors import SetupError

DEFAULT = Path(__file__).with_name("fleet.toml")
MOST_CONNECTIONS, MOST_DAYS, MOST_BYTES = 20_000_000, 92, 1_000_000

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=60, le=5 * 365 * 86400)]
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Span = tuple[float, float]


class Described(BaseModel):
    """Strict, so that a misspelt key is not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class Usage(Described):
    """How connections of one kind are used. What is left of 1 is not used at all."""

    scheduled: Share = Field(description="share that is called at a fixed step, day and night")
    every_s: Span = Field(description="the step: evenly between these")
    people: Share = Field(description="share whose users come in sessions")
    come: Share = Field(description="how likely they come on a working day …")
    come_weekends: Share = Field(description="… and on a Saturday or Sunday")
    calls: Span = Field(description="of a session: evenly between these, at moments that chance picks")
    session_s: Span = Field(description="how long one takes: evenly between these, and within the working day")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.scheduled + self.people > 1:
            raise ValueError("scheduled and people are more than 1 together")
        if not (60 <= self.every_s[0] <= self.every_s[1]):
            raise ValueError("every_s goes from 60 s upwards, the smaller number first")
        if not (2 <= self.calls[0] <= self.calls[1] <= 10_000):
            raise ValueError("calls go from 2 to 10000, the smaller number first")
        if not (60 <= self.session_s[0] <= self.session_s[1] <= 86400):
            raise ValueError("session_s goes from 60 s to a day, the smaller number first")
        return self


class Provider(Described):
    """One provider: how its tokens live, and what it bears."""

    name: Name
    share: Share = Field(description="of the connections")
    usage: Name
    access_life_s: Seconds
    refresh_idle_s: Seconds | None = Field(default=None, description="a refresh token unused for so long is dead")
    calls_per_s: Annotated[float, Field(gt=0, le=1e6)] = Field(description="more in a minute are answered 429")


class Zone(Described):
    """Where tenants work."""

    utc_offset_h: Annotated[float, Field(ge=-12, le=14)]
    share: Share


class Tenants(Described):
    """Who the connections belong to."""

    connections: Annotated[float, Field(ge=1, le=1e6)] = Field(description="of a tenant, in the mean")
    workday_h: Span = Field(description="local hours between which sessions lie")
    zones: Annotated[list[Zone], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not (0 <= self.workday_h[0] < self.workday_h[1] <= 24):
            raise ValueError("workday_h goes from 0 to 24, the smaller number first")
        return self


class Outage(Described):
    """Token endpoints that answer nothing."""

    begins_h: Annotated[float, Field(ge=0)] = Field(description="hours after the start, a Monday 00:00 UTC")
    lasts_s: Seconds
    providers: list[Name] | None = Field(default=None, description="without it: all of them")


class Cron(Described):
    """How the cron job that everybody writes is set."""

    every_s: Annotated[float, Field(ge=60, le=86400, multiple_of=60)] = 900
    margin_s: Seconds = Field(default=1800, description="of tokens that live two hours at the most")
    long_margin_s: Seconds = Field(default=86400, description="of all others")


class Fleet(Described):
    """The whole file. Rate limits are those of the fleet as described: a smaller copy of it gets its share of them."""

    connections: Annotated[int, Field(ge=1, le=MOST_CONNECTIONS)]
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 7
    seed: Annotated[int, Field(ge=0, le=2**63)] = 1
    tenants: Tenants
    usages: dict[Name, Usage]
    providers: Annotated[list[Provider], Field(min_length=1, max_length=100)]
    outages: Annotated[list[Outage], Field(max_length=20)] = []
    cron: Cron = Cron()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [one.name for one in self.providers]
        shares = {
            "providers": [one.share for one in self.providers],
            "tenants.zones": [one.share for one in self.tenants.zones],
        }
        for what, of in shares.items():
            if abs(sum(of) - 1) > 1e-6:
                raise ValueError(f"the shares of {what} do not add up to 1")
        if len(set(names)) < len(names):
            raise ValueError("two providers have one name")
        if any(one.refresh_idle_s is not None and one.refresh_idle_s <= one.access_life_s for one in self.providers):
            raise ValueError("a refresh token's idle life is longer than an access token's")
        if missing := {one.usage for one in self.providers} - set(self.usages):
            raise ValueError(f"a provider's usage is not described: {min(missing)}")
        if missing := {name for one in self.outages for name in one.providers or ()} - set(names):
            raise ValueError(f"an outage of a provider that is not described: {min(missing)}")
        return self

    def sized(self, connections: int | None = None, days: int | None = None, seed: int | None = None) -> Fleet:
        """The same fleet at another size: rate limits shrink and grow with it. Raises: SetupError."""
        size = self.connections if connections is None else connections
        scale = size / self.connections
        said = self.model_dump() | {"connections": size}
        said["providers"] = [one | {"calls_per_s": one["calls_per_s"] * scale} for one in said["providers"]]
        given = {"days": days, "seed": seed}
        return judged(said | {key: value for key, value in given.items() if value is not None}, "the fleet")


def read(path: Path) -> Fleet:
    """The fleet described in a file. Raises: SetupError, one line; OSError."""
    fault = ""
    try:
        data = path.read_bytes()
        raw = tomllib.loads(data.decode()) if len(data) <= MOST_BYTES else {}
        fault = "" if raw else "describes nothing" if len(data) <= MOST_BYTES else f"is longer than {MOST_BYTES} bytes"
    except UnicodeDecodeError:
        fault = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = f"is not TOML: {error}"
    except (ValueError, RecursionError):
        fault = "is not TOML that can be read"
    if fault:
        raise SetupError(f"{path} {fault}")
    return judged(raw, str(path))


def judged(raw: dict[str, object], source: str) -> Fleet:
    """`raw` as a fleet. Raises: SetupError, with every fault in one line."""
    try:
        return Fleet.model_validate(raw)
    except ValidationError as error:
        faults = [
            " ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))))
            for one in error.errors(include_input=False, include_url=False)
        ]
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    raise SetupError(f"{source}: {'; '.join(faults[:5])}{more}")
