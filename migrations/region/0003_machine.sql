-- State machine: what fences know of a grant, what every signal led to, checks under way, how providers are.

-- The last proof that the grant lived, by the region's clock: when the answer was asked for that brought its tokens, or a
-- probe that acquits. A signal about an earlier moment is not about the grant as it is now (PROTOCOLS 4).
ALTER TABLE gateway.grants ADD COLUMN alive_at timestamptz NOT NULL DEFAULT gateway.now();
UPDATE gateway.grants g SET alive_at = coalesce(
  (SELECT t.issued_at FROM gateway.tokens t WHERE (t.connection_id, t.access_profile) = (g.connection_id, g.access_profile)),
  g.granted_at);
-- A verified signal of unknown generation waits for a check: no token is handed out meanwhile, and the state stays.
ALTER TABLE gateway.grants ADD COLUMN contested boolean NOT NULL DEFAULT false;
-- Keyed hashes of what a provider may call its refresh token by (RISC: prefix, double hash).
ALTER TABLE gateway.grants ADD COLUMN marks uuid[] NOT NULL DEFAULT '{}';
-- … by which its deliveries find the connection, like those of its accounts, among which they do not count.
ALTER TABLE gateway.connection_accounts ADD COLUMN mark boolean NOT NULL DEFAULT false;

-- A connection that comes to be looks back at what matched none: without this, past every signal of the quarter of an hour,
-- among them the activations of all that were imported with it.
CREATE INDEX events_unmatched ON gateway.events (integration_id, seq) WHERE signal AND connections = '{}';

-- The end that `connection.expiring_soon` has told of, so that it tells once.
ALTER TABLE gateway.grants ADD COLUMN expiring_told_until timestamptz;
-- When nothing but a consent can go on: the refresh token's end, or the access token's where there is none.
CREATE INDEX tokens_end ON gateway.tokens ((CASE WHEN has_refresh THEN refresh_expires_at ELSE expires_at END))
 WHERE (CASE WHEN has_refresh THEN refresh_expires_at ELSE expires_at END) IS NOT NULL;

-- What every signal led to, those that changed nothing among them: the story of a connection, with its evidence.
CREATE TABLE gateway.history (
  id uuid PRIMARY KEY,
  connection_id uuid NOT NULL REFERENCES gateway.connections ON DELETE CASCADE,
  access_profile text,                -- null: the connection itself, which has no grants
  at timestamptz NOT NULL,
  signal text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('moved', 'stays', 'stale', 'contested', 'refuted', 'guarded', 'illegal', 'asked')),
  cause text NOT NULL,                -- tokens_revoked, refresh_refused, connect …
  source text NOT NULL,               -- delivery, token_answer, report, probe, consent, import, operator, clock
  evidence uuid,                      -- the event of the log that says so
  code text,                          -- the provider's own, where it is a plain word
  occurred_at timestamptz,            -- by the provider's clock, as far as it is known
  generation integer,
  token_version integer,
  state_before text NOT NULL,
  state_after text NOT NULL
);
CREATE INDEX ON gateway.history (connection_id, id);
CREATE INDEX ON gateway.history (evidence) WHERE evidence IS NOT NULL;   -- the same signal is heard once
CREATE INDEX history_at ON gateway.history USING brin (at);

-- Grants that are to be checked at their provider: one row each, whatever asked for it. It survives processes.
CREATE TABLE gateway.grant_checks (
  connection_id uuid NOT NULL,
  access_profile text NOT NULL,
  provider text NOT NULL,             -- whose condition counts: a provider's name, or provider:integration
  why text NOT NULL CHECK (why IN ('hint', 'rejected', 'refused', 'contested')),
  -- What is applied if a contested signal turns out true, and where it came from.
  signal text,
  reason text,
  evidence uuid,
  occurred_at timestamptz,
  asked_at timestamptz NOT NULL,      -- an answer to a question that was sent before this decides nothing
  due_at timestamptz NOT NULL,
  waits boolean NOT NULL DEFAULT false,   -- until the provider is well
  tries integer NOT NULL DEFAULT 0,
  last_error text,                    -- a code, never a text of the provider's
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  -- Of the one sequence: a check that is decided and asked for anew knows no fence of its former life.
  fence bigint NOT NULL DEFAULT nextval('gateway.fences'),
  PRIMARY KEY (connection_id, access_profile),
  FOREIGN KEY (connection_id, access_profile) REFERENCES gateway.grants ON DELETE CASCADE
);
CREATE INDEX grant_checks_due ON gateway.grant_checks (due_at) WHERE NOT waits;
CREATE INDEX grant_checks_waiting ON gateway.grant_checks (provider, due_at) WHERE waits;

-- Answers that would end a grant, for a week: what is usual at a provider, and whether this is more (the guard).
CREATE TABLE gateway.provider_failures (
  provider text NOT NULL,
  error_class text NOT NULL,          -- refused (token endpoint), rejected (API), odd (no answer of the provider's)
  at timestamptz NOT NULL,
  tenant_id text NOT NULL,
  connection_id uuid NOT NULL
);
CREATE INDEX provider_failures_recent ON gateway.provider_failures (provider, error_class, at);
CREATE INDEX provider_failures_at ON gateway.provider_failures USING brin (at);
CREATE TABLE gateway.provider_conditions (
  provider text PRIMARY KEY,
  degraded_since timestamptz,         -- null: well
  error_class text,                   -- what tripped the guard
  failures bigint NOT NULL DEFAULT 0, -- since then, that moved nobody
  passed integer NOT NULL DEFAULT 0,  -- canaries that passed, one after the other
  canary_at timestamptz NOT NULL DEFAULT '-infinity'   -- when the next one may be sent
);

-- Deliveries that the follower could not digest. They stay on the log, and are tried again on command.
CREATE TABLE gateway.set_aside (
  event_id uuid PRIMARY KEY,
  seq bigint NOT NULL,
  integration_id uuid,
  type text NOT NULL,
  at timestamptz NOT NULL,            -- when it was set aside
  error text NOT NULL,                -- a code
  tries integer NOT NULL DEFAULT 1,
  redrive boolean NOT NULL DEFAULT false   -- asked for, and not done yet
);
CREATE INDEX ON gateway.set_aside (redrive) WHERE redrive;
