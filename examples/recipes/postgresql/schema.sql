CREATE TABLE IF NOT EXISTS issues (
    id bigint PRIMARY KEY,
    repository text NOT NULL,
    number bigint NOT NULL,
    title text NOT NULL,
    state text NOT NULL,
    deleted boolean NOT NULL,
    updated_at text NOT NULL
);
