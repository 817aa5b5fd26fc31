//! The rows that the benches read.

/// What the figures of the design were measured with.
pub const MAJOR: u16 = 15;

/// Nothing of the server's own may compete with what is measured: it has two cores in all.
pub const SETTINGS: [(&str, &str); 3] =
    [("autovacuum", "off"), ("max_wal_size", "16GB"), ("checkpoint_timeout", "1h")];

/// Values of usual kinds and lengths: an envelope has some 730 bytes.
pub const TABLE: &str = "create table public.changes (
    id bigint primary key, customer integer not null, product text not null, quantity smallint not null,
    price numeric(10, 2) not null, paid boolean not null, note text, changed timestamptz not null)";

/// The values of row `i`.
pub const ROW: &str =
    "i, (i::bigint * 7919) % 100000, 'turbine ' || i % 500, i % 40, (i % 1000000) / 100.0, i % 3 = 0,
    case when i % 10 > 0 then 'a \"short\" note' end, clock_timestamp()";
