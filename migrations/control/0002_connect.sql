-- What connecting accounts needs to know of an integration, beside its client id and secrets.
ALTER TABLE control.integrations ADD COLUMN access_profiles jsonb NOT NULL DEFAULT '{}';   -- {name: {required, optional}}
ALTER TABLE control.integrations ADD COLUMN return_urls text[] NOT NULL DEFAULT '{}';      -- where a connect session may end
