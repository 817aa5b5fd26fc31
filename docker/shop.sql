-- Run once, when compose.yaml makes the database: a role for Forebay and a table to play with.
CREATE ROLE forebay LOGIN REPLICATION PASSWORD 'forebay';
GRANT CREATE ON DATABASE shop TO forebay;

CREATE TABLE orders (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer  text NOT NULL,
    total     numeric(12,2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);
-- a publication takes only tables of its owner
ALTER TABLE orders OWNER TO forebay;
