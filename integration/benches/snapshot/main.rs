//! How fast Forebay copies what is in a table already, beside the fastest that the server gives it out.
//!
//! ```text
//! cargo bench -p forebay-integration --bench snapshot                     all of it, some minutes
//! cargo bench -p forebay-integration --bench snapshot -- --rows 200000 --rounds 1 --values 2      a look
//! cargo bench -p forebay-integration --bench snapshot -- --help
//! ```
//! `COPY … TO STDOUT` into `/dev/null` on one connection and on two (the ceilings), and the daemon's initial copy into
//! each destination, read the same table in rounds (A B C D, A B C D, …). What is compared are ratios within a round,
//! because machines drift; what is shown are medians. Then a table of very large values is copied under a memory limit,
//! for what the daemon takes of memory.
//!
//! A ceiling's time is that of its processes. The daemon's begins when the first rows are out, which do not count, and
//! ends when the last one is durable; what it does before (a slot, a publication, the division of the table) is shown
//! beside it.
//!
//! Needs what `integration/run --bring` brings, and `psql` (`apt-get install postgresql-client`).

mod copies;
mod report;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use forebay_integration::bench::{self, UNAVAILABLE};

use copies::{Kind, Programs};
use report::Report;
use table::Table;

/// What the daemon may use while it copies large values.
const LARGE_MEMORY: &str = "256MiB";

/// Measure how fast Forebay copies a PostgreSQL table, beside `COPY`
#[derive(Debug, Parser)]
struct Options {
    /// How many rows the table has
    #[arg(long, default_value_t = 2_000_000)]
    rows: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this destination, beside the ceilings; may be given several times
    #[arg(long, value_enum)]
    into: Vec<Kind>,
    /// The source's `snapshot_parallel`, instead of its default
    #[arg(long)]
    parallel: Option<u32>,
    /// How many values of 100 MB are copied after that; 0: none
    #[arg(long, default_value_t = 8)]
    values: u32,
    /// A daemon that is built already, to compare two
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// `cargo bench` gives this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let psql = match bench::client("psql") {
        Ok(program) => program,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(UNAVAILABLE);
        }
    };
    let forebay = match options.daemon.clone().map_or_else(bench::forebay, Ok) {
        Ok(daemon) => daemon,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let programs = Programs { psql, forebay, parallel: options.parallel };
    println!("{}", bench::machine());
    if options.rows > 0 {
        throughput(&options, &programs).await;
    }
    if options.values > 0 {
        large(&options, &programs).await;
    }
    ExitCode::SUCCESS
}

/// Fills a table of usual rows and lets everybody copy it, round by round.
async fn throughput(options: &Options, programs: &Programs) {
    eprintln!("writing {} rows", options.rows);
    let table = Table::usual(options.rows).await;
    let mut report = Report::new(options.rows);
    let all = Kind::value_variants().iter().copied();
    let kinds: Vec<Kind> =
        all.filter(|kind| options.into.is_empty() || options.into.contains(kind)).collect();
    for round in 1..=options.rounds {
        let mut ceilings = Vec::new();
        for connections in [1, 2] {
            let ceiling = copies::ceiling(programs, &table, connections).await;
            eprintln!("round {round} (load {}): COPY on {connections}: {ceiling}", bench::load());
            ceilings.push(ceiling);
        }
        let mut runs = Vec::new();
        for &kind in &kinds {
            let run = copies::forebay(programs, &table, kind, None).await;
            eprintln!("round {round} (load {}): {kind}: {run}", bench::load());
            runs.push((kind, run));
        }
        report.add(ceilings.try_into().expect("there are two"), runs);
    }
    println!("\n{report}");
}

/// Copies a table of large values.
async fn large(options: &Options, programs: &Programs) {
    eprintln!("writing {} values of {} MB", options.values, table::LARGE_BYTES / 1_000_000);
    let table = Table::large(options.values).await;
    let run = copies::forebay(programs, &table, Kind::Blackhole, Some(LARGE_MEMORY)).await;
    println!(
        "{} values of {} MB with `limits.memory: {LARGE_MEMORY}` (load {}): {run}",
        options.values,
        table::LARGE_BYTES / 1_000_000,
        bench::load()
    );
}
