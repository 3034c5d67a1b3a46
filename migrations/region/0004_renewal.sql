-- Renewal: one refresh of a token however many ask, nothing lost when its answer is, and a plan for every connection.

-- Processes that serve this region, by its clock. Whoever finds a refresh open asks here whether its holder still lives: it
-- may have the answer in its memory or in its spool.
CREATE TABLE gateway.processes (
  id uuid PRIMARY KEY,
  started_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL,
  dead boolean NOT NULL DEFAULT false -- whoever has its spool is heard of in its stead: it has an answer, and makes no calls
);

-- A refresh that is open: lease and intent in one row a grant. No row: nothing is under way, and no answer is missing.
-- claimed: the holder has it, and no byte has left. sent: one may have. lost: it has, and the holder says that no answer
-- will come. failed: answered, and not with tokens, or nothing was sent.
CREATE TABLE gateway.refreshes (
  connection_id uuid NOT NULL,
  access_profile text NOT NULL,
  generation integer NOT NULL,        -- the token set that is spent
  token_version integer NOT NULL,
  phase text NOT NULL CHECK (phase IN ('claimed', 'sent', 'lost', 'failed')),
  holder uuid NOT NULL,               -- a process
  fence bigint NOT NULL,
  lease_until timestamptz NOT NULL,
  unanswered_since timestamptz,       -- when an answer first went missing, of this token set; null: none has
  spender uuid,                       -- … and whose it was: it may be in that one's spool
  again_at timestamptz NOT NULL DEFAULT '-infinity',   -- nobody asks sooner
  tries integer NOT NULL DEFAULT 0,   -- without success, one after the other
  last_error text,                    -- a code, never a text of the provider's
  waited boolean NOT NULL DEFAULT false,   -- another process waits for it: its end is told
  PRIMARY KEY (connection_id, access_profile),
  FOREIGN KEY (connection_id, access_profile) REFERENCES gateway.grants ON DELETE CASCADE
);

-- Every token set that came, and a keyed hash of its refresh token, never the token: a rotation that was not ours shows.
CREATE TABLE gateway.rotations (
  connection_id uuid NOT NULL REFERENCES gateway.connections ON DELETE CASCADE,
  access_profile text NOT NULL,
  token_version integer NOT NULL,
  generation integer NOT NULL,
  at timestamptz NOT NULL,
  source text NOT NULL CHECK (source IN ('consent', 'import', 'refresh', 'spool')),
  fingerprint uuid,                   -- null: it has no refresh token
  rotated boolean NOT NULL,           -- it is another one than before
  holder uuid,                        -- the process that got it
  epoch bigint NOT NULL,              -- of the log, then: in a copy of the database a later one is not to be seen
  unanswered boolean NOT NULL DEFAULT false,   -- it was spent, and no answer came: that it is refused says nothing any more
  reuse text CHECK (reuse IN ('refused_current', 'superseded_import', 'provider_reported')),
  reuse_at timestamptz,               -- when it showed that somebody else has this refresh token; said once
  PRIMARY KEY (connection_id, access_profile, token_version)
);
CREATE INDEX rotations_fingerprint ON gateway.rotations (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX rotations_at ON gateway.rotations USING brin (at);

-- Breakers that are open, for every process to see; those that are shut (calls pass) have no row.
CREATE TABLE gateway.breakers (
  scope text PRIMARY KEY,             -- kind:host, limited:kind:host, or integration:id:kind for an integration incident
  provider text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('token', 'api', 'subscription')),
  host text,
  integration_id uuid,
  why text NOT NULL CHECK (why IN ('failing', 'limited', 'misconfigured')),
  code text,                          -- of the last failure: a code, never a text of the provider's
  since timestamptz NOT NULL,
  canary_at timestamptz NOT NULL,     -- when one call may be tried; a rate limit's end
  pause_s double precision NOT NULL,
  passed integer NOT NULL DEFAULT 0,  -- canaries that passed, one after the other
  failures bigint NOT NULL DEFAULT 1,
  -- Of an incident: a keyed hash of the set-up that was refused, and control's revision then. A newer one that differs is
  -- tried at once, by one process; and nobody who still has the older one in memory tries it meanwhile.
  setup uuid,
  setup_revision bigint NOT NULL DEFAULT 0
);

-- The renewal unit: one a connection, for its tokens and its subscriptions. Whatever changes what it is planned from has it
-- looked at again (`asked_at`); a lease is a due time that is put off.
CREATE TABLE gateway.renewals (
  connection_id uuid PRIMARY KEY REFERENCES gateway.connections ON DELETE CASCADE,
  integration_id uuid NOT NULL,
  tenant_id text NOT NULL,
  due_at timestamptz NOT NULL,        -- infinity: nothing to do until something changes
  act text NOT NULL DEFAULT 'look' CHECK (act IN ('look', 'renew')),   -- what is due then
  reason text NOT NULL DEFAULT 'changed',
  asked_at timestamptz NOT NULL,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  fence bigint NOT NULL DEFAULT 0,
  tries integer NOT NULL DEFAULT 0,   -- without success, one after the other
  last_error text,
  used_at timestamptz                 -- when a token was last read, to a minute or so
) WITH (fillfactor = 85);
CREATE INDEX renewals_due ON gateway.renewals (integration_id, tenant_id, due_at) WHERE due_at < 'infinity';

-- Whose turn it is: one row for each tenant of each integration. Who was served goes to the end of the queue, so no backlog of
-- one tenant's holds up another's. `turn_at` is never later than the first that falls due.
CREATE TABLE gateway.renewal_queues (
  integration_id uuid NOT NULL,
  tenant_id text NOT NULL,
  turn_at timestamptz NOT NULL,
  PRIMARY KEY (integration_id, tenant_id)
);
CREATE INDEX renewal_turns ON gateway.renewal_queues (integration_id, turn_at);

-- Traffic by the hour of the day (UTC), for the quiet hours: reads and deliveries, those of last week counting half.
CREATE TABLE gateway.traffic_hours (
  integration_id uuid NOT NULL,
  tenant_id text NOT NULL,
  hour smallint NOT NULL CHECK (hour BETWEEN 0 AND 23),
  weight double precision NOT NULL,
  as_of timestamptz NOT NULL,
  PRIMARY KEY (integration_id, tenant_id, hour)
);

-- Everything that is there already is looked at within a quarter of an hour.
INSERT INTO gateway.renewals (connection_id, integration_id, tenant_id, due_at, asked_at)
SELECT c.id, c.integration_id, c.tenant_id, gateway.now() + random() * interval '15 minutes', gateway.now()
  FROM gateway.connections c WHERE c.state <> 'closed' AND EXISTS (SELECT FROM gateway.grants g WHERE g.connection_id = c.id);
INSERT INTO gateway.renewal_queues (integration_id, tenant_id, turn_at)
SELECT integration_id, tenant_id, min(due_at) FROM gateway.renewals GROUP BY 1, 2;
