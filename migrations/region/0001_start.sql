-- A region: the log and everything that belongs to its tenants. PROTOCOLS 1 to 3 explain the log; short essays below.
CREATE SCHEMA IF NOT EXISTS gateway;   -- there already: its schema_version table is Alembic's

-- The region's clock: the database's, which tests can shift. A process's own clock never judges a lease or a window.
CREATE TABLE gateway.clock (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  shifted_by interval NOT NULL DEFAULT '0'
);
INSERT INTO gateway.clock DEFAULT VALUES;
CREATE FUNCTION gateway.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  $$ SELECT clock_timestamp() + shifted_by FROM gateway.clock $$;

-- Which log this is. The identity is where the rows lie: when it is not the stored one, the database was put back to
-- an earlier point (or a standby took over), a new epoch is drawn, and every older cursor is told so. An epoch is
-- drawn, not counted: two restores of one dump must not agree by chance of having both come next.
CREATE TABLE gateway.epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  epoch bigint NOT NULL,
  identity text NOT NULL
);

CREATE TABLE gateway.connections (
  id uuid PRIMARY KEY,
  tenant_id text NOT NULL,
  integration_id uuid NOT NULL,
  external_id text,
  end_user_id text,
  labels jsonb NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'active'
    CHECK (state IN ('pending', 'active', 'suspect', 'suspended', 'reauth_required', 'revoked', 'closed')),
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX ON gateway.connections (tenant_id, integration_id, external_id) WHERE external_id IS NOT NULL AND state <> 'closed';
CREATE INDEX ON gateway.connections (tenant_id, id);

-- The accounts at the provider by which a connection's items are found, as keyed hashes.
CREATE TABLE gateway.connection_accounts (
  integration_id uuid NOT NULL,
  account_hash uuid NOT NULL,
  connection_id uuid NOT NULL REFERENCES gateway.connections ON DELETE CASCADE,
  PRIMARY KEY (integration_id, account_hash, connection_id)
);
CREATE INDEX ON gateway.connection_accounts (connection_id);

-- URLs of ours that providers call for one connection or one subscription. `confirming`: a handshake is awaited.
CREATE TABLE gateway.hook_endpoints (
  id uuid PRIMARY KEY,
  integration_id uuid NOT NULL,
  connection_id uuid REFERENCES gateway.connections ON DELETE CASCADE,
  state text NOT NULL CHECK (state IN ('confirming', 'live', 'retired')),
  confirm_until timestamptz,          -- `confirming` ends by itself
  sealed_secrets bytea[] NOT NULL DEFAULT '{}',   -- newest first; empty: the integration's secrets hold here
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE INDEX ON gateway.hook_endpoints (integration_id, id);

-- The log. One row an event, partitioned by day so that retention is a DROP. `seq` order is commit order (append()).
-- No primary key: uniqueness is dedupe's (every event holds a key there), and a unique index here would have to
-- name `at` and prove nothing.
CREATE SEQUENCE gateway.events_seq;
CREATE TABLE gateway.events (
  seq bigint NOT NULL,
  at timestamptz NOT NULL,            -- when it was kept, by the region's clock
  id uuid NOT NULL,
  type text NOT NULL,
  time timestamptz NOT NULL,          -- when it happened, as far as we know: CloudEvents `time`
  integration_id uuid,
  connections uuid[] NOT NULL,        -- of this region only; empty: matched none yet
  tenants text[] NOT NULL,            -- whose connections these are: one for each, in their order
  partitions smallint[] NOT NULL,     -- the consumer partitions it belongs to: one for each connection
  accounts uuid[] NOT NULL,           -- hashes by which an unmatched signal is looked at again after an activation
  signal boolean NOT NULL,            -- may say something about a grant
  content_type text NOT NULL,
  delivery json,                      -- headers, verification, digests; null for events that are our own
  data bytea NOT NULL
) PARTITION BY RANGE (at);
ALTER TABLE gateway.events ALTER COLUMN data SET STORAGE EXTERNAL;   -- pglz would cost more than it saves
CREATE INDEX events_seq_order ON gateway.events (seq);
CREATE INDEX events_signal ON gateway.events (seq) WHERE signal;

CREATE FUNCTION gateway.identity() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT concat_ws(':', (SELECT system_identifier FROM pg_control_system()),
                   left(pg_walfile_name(pg_current_wal_lsn()), 8),   -- the timeline
                   (SELECT oid FROM pg_database WHERE datname = current_database()), 'gateway.events'::regclass::oid)
$$;

-- What retention has dropped: a cursor before this is told so. And how far the sweep of dedupe has walked, which
-- must outlive processes: one that began anew with each of them would never see the table's end.
CREATE TABLE gateway.retention (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  dropped_through bigint NOT NULL DEFAULT 0,
  swept_to bigint NOT NULL DEFAULT 0   -- page of dedupe
);
INSERT INTO gateway.retention DEFAULT VALUES;
INSERT INTO gateway.epoch (epoch, identity) VALUES (floor(random() * 4294967296)::bigint, gateway.identity());

-- What is already on the log. One unpartitioned table, because only a unique index over all of it can say "once".
-- A key is a keyed hash of what the provider makes unique; where it makes nothing unique, the event's own id (so
-- that a batch sent again after a lost COMMIT answer finds itself). No index on expires_at: the sweep walks pages.
CREATE TABLE gateway.dedupe (
  key uuid PRIMARY KEY,
  expires_at timestamptz NOT NULL
);

-- Days are made by CREATE then ATTACH: CREATE … PARTITION OF would wait behind every writer. From yesterday on: a clock
-- that steps back over midnight must not leave a log that was made today without a place for what comes then.
CREATE FUNCTION gateway.make_partitions(days_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  today date := (gateway.now() AT TIME ZONE 'UTC')::date;
  day date := today - 1;
  last date := today + days_ahead;
  name text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('posthouse.partitions'));
  WHILE day <= last LOOP
    name := 'events_' || to_char(day, 'YYYYMMDD');
    IF to_regclass('gateway.' || name) IS NULL THEN
      -- An everyday event (about 2 KB) stays in one piece: out of line it costs a second heap and a second index.
      EXECUTE format('CREATE TABLE gateway.%I (LIKE gateway.events INCLUDING DEFAULTS INCLUDING STORAGE) '
                     'WITH (toast_tuple_target = 8160)', name);
      EXECUTE format('ALTER TABLE gateway.events ATTACH PARTITION gateway.%I FOR VALUES FROM (%L) TO (%L)',
                     name, day::text || ' 00:00+00', (day + 1)::text || ' 00:00+00');
      made := made + 1;
    END IF;
    day := day + 1;
  END LOOP;
  RETURN made;
END $$;
SELECT gateway.make_partitions(7);

-- The consumer partition of a connection (or, where an event has none, of its account or integration): 0 to 63.
CREATE FUNCTION gateway.partition_of(id uuid) RETURNS smallint LANGUAGE sql IMMUTABLE AS
  $$ SELECT (get_byte(uuid_send(id), 15) & 63)::smallint $$;

-- THE way onto the log, for deliveries and for state changes alike, as the last statement before COMMIT.
--   1. Keys go into dedupe in key order, so that two batches can only wait for each other in one direction. A key
--      that another open transaction holds makes us wait for its fate: "duplicate" means "kept", never "maybe".
--   2. One advisory lock per region, held until COMMIT is visible. `seq` is drawn under it, so order of seq is order
--      of commit for every reader, and "after my cursor" never skips one that was slow.
--   3. Connections are looked up after the lock (each statement of a VOLATILE function sees what was committed when
--      it starts): an activation whose event has a lower seq is seen, one with a higher seq is not. So the look-back
--      after an activation needs only the events before it: nothing falls between.
-- Returns the fresh events; those missing were duplicates, those without seq matched no connection and were to be
-- dropped then. `waited` is the time spent on the lock.
-- Arrays run in parallel, one entry an event; `accounts` holds uuid[] literals. No joins between the arrays, since the
-- planner knows nothing of their length and would nest loops; and no CTE around the rows, which would copy each body.
CREATE FUNCTION gateway.append(
  ids uuid[], keys uuid[], windows_s integer[], types text[], times timestamptz[], integrations uuid[],
  fixed_connections uuid[], drops boolean[], signals boolean[], content_types text[], deliveries text[], datas bytea[],
  accounts text[]
) RETURNS TABLE (event_id uuid, event_seq bigint, matched boolean, waited interval) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan   -- the arrays differ, the plan does not: planning cost more than running
AS $$
#variable_conflict use_column
DECLARE
  fresh uuid[];
  all_fresh boolean;
  before timestamptz;
  wait interval;
  before_seq bigint;
  kept_at timestamptz := gateway.now();
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN   -- else 1 and 3 would look at an older snapshot
    RAISE 'gateway.append needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
  END IF;
  WITH kept AS (
    INSERT INTO gateway.dedupe (key, expires_at)
    SELECT k, kept_at + make_interval(secs => w) FROM unnest(keys, windows_s) AS i(k, w) ORDER BY k
    ON CONFLICT (key) DO NOTHING RETURNING key)
  SELECT array_agg(key) INTO fresh FROM kept;
  IF fresh IS NULL THEN
    RETURN;
  END IF;
  all_fresh := cardinality(fresh) = cardinality(keys);

  before := clock_timestamp();
  PERFORM pg_advisory_xact_lock(hashtext('posthouse.append'));
  wait := clock_timestamp() - before;
  kept_at := gateway.now();
  before_seq := (SELECT last_value FROM gateway.events_seq) - 1;   -- - 1: of a sequence not yet used it is the first

  RETURN QUERY
  INSERT INTO gateway.events (seq, at, id, type, time, integration_id, connections, tenants, partitions, accounts,
                              signal, content_type, delivery, data)
  SELECT nextval('gateway.events_seq'), kept_at, i.id, i.type, i.time, i.integration,
         coalesce(mine.connections, '{}'), coalesce(mine.tenants, '{}'),
         CASE WHEN mine.connections IS NULL
              THEN ARRAY[gateway.partition_of(coalesce((i.account::uuid[])[1], i.integration, i.id))]
              ELSE ARRAY(SELECT DISTINCT gateway.partition_of(c) FROM unnest(mine.connections) AS c ORDER BY 1) END,
         i.account::uuid[], i.signal, i.content_type, i.delivery::json, i.data
    FROM unnest(ids, keys, types, times, integrations, fixed_connections, drops, signals, content_types, deliveries, datas, accounts)
           AS i(id, key, type, time, integration, fixed, drops, signal, content_type, delivery, data, account)
    LEFT JOIN LATERAL (
      SELECT array_agg(c.id ORDER BY c.id) AS connections, array_agg(c.tenant_id ORDER BY c.id) AS tenants
        FROM gateway.connections c
       WHERE (c.state NOT IN ('pending', 'closed') OR i.fixed IS NOT NULL AND i.delivery IS NULL)   -- our own word on its end
         AND c.id = ANY (CASE WHEN i.fixed IS NOT NULL THEN ARRAY[i.fixed] ELSE ARRAY(
               SELECT a.connection_id FROM gateway.connection_accounts a
                WHERE a.integration_id = i.integration AND a.account_hash = ANY (i.account::uuid[])) END)
    ) AS mine ON true
   WHERE (all_fresh OR i.key = ANY (fresh)) AND NOT (i.drops AND mine.connections IS NULL)
  RETURNING events.id, events.seq, events.connections <> '{}', wait;

  IF true = ANY (drops) THEN
    RETURN QUERY
    SELECT i.id, NULL::bigint, false, wait FROM unnest(ids, keys, drops) AS i(id, key, drops)
     WHERE i.drops AND i.key = ANY (fresh)
       AND NOT EXISTS (SELECT FROM gateway.events e WHERE e.id = i.id AND e.seq > before_seq);
  END IF;

  PERFORM pg_notify('posthouse_events', '');
END $$;

CREATE TABLE gateway.consumers (
  name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,99}$'),
  created_at timestamptz NOT NULL
);
CREATE TABLE gateway.consumer_partitions (
  consumer text NOT NULL REFERENCES gateway.consumers ON DELETE CASCADE,
  partition smallint NOT NULL CHECK (partition BETWEEN 0 AND 63),
  cursor_seq bigint NOT NULL,         -- everything up to here is done
  cursor_mark bytea NOT NULL,         -- of the event there (gateway/stream/cursor.py)
  fence bigint NOT NULL,              -- a new one with every change of hands
  worker text,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (consumer, partition)
);
-- One sequence for all: a consumer that is removed and made again knows no fence of its former life.
CREATE SEQUENCE gateway.fences;
-- Who wants a share, those who have none yet among them: nobody would be asked to release for one who is not counted.
CREATE TABLE gateway.consumer_workers (
  consumer text NOT NULL REFERENCES gateway.consumers ON DELETE CASCADE,
  worker text NOT NULL,
  wants_until timestamptz NOT NULL,
  PRIMARY KEY (consumer, worker)
);

-- Why deliveries were not taken: the last 1,000 of each integration. Never a body, never a header's value.
CREATE TABLE gateway.refusals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  integration_id uuid NOT NULL,
  endpoint_id uuid,
  at timestamptz NOT NULL,
  reason text NOT NULL,
  status integer NOT NULL,
  header_names text[] NOT NULL,
  skew_s double precision,
  size bigint NOT NULL,
  digest bytea NOT NULL               -- SHA-256 of the body
);
CREATE INDEX ON gateway.refusals (integration_id, id);
