//! How fast Forebay reads a database's log, beside the fastest that the server gives it out.
//!
//! ```text
//! cargo bench -p forebay-integration --bench wal                          all of it, some ten minutes
//! cargo bench -p forebay-integration --bench wal -- --changes 100000 --rounds 1      a look
//! cargo bench -p forebay-integration --bench wal -- --help
//! ```
//! For each of two workloads, one large transaction and one row per transaction, the WAL is written first. Then
//! `pg_recvlogical` into `/dev/null` (the ceiling) and Forebay into each of its destinations read the same WAL, each
//! from a copy of one slot, in rounds (A B C D, A B C D, …). What is compared are ratios within a round, because
//! machines drift; what is shown are medians. Last comes the time from a commit to a Kafka consumer.
//!
//! A rate counts from the first change that a reader gets to the last one that is durable at its destination: what
//! the server does before the first one is the same for all, and shown beside it.
//!
//! Needs what `integration/run --bring` brings, and `pg_recvlogical` (`apt-get install postgresql-client`).

mod latency;
mod readers;
mod report;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use forebay_integration::bench::{self, UNAVAILABLE};
use forebay_integration::{Broker, Kafka};

use latency::Setup;
use readers::{Kind, Programs};
use report::Table;
use workload::{Shape, Wal};

/// Measure how fast Forebay reads a PostgreSQL database's log, beside `pg_recvlogical`
#[derive(Debug, Parser)]
struct Options {
    /// How many changes each workload has
    #[arg(long, default_value_t = 1_000_000)]
    changes: u32,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this part; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Only this destination, beside the ceiling; may be given several times
    #[arg(long, value_enum)]
    into: Vec<Kind>,
    /// How long latency is measured, at 1,000 commits a second
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// A daemon that is built already, to compare two
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// A configuration's `limits.memory`, instead of the default for this machine
    #[arg(long)]
    memory: Option<String>,
    /// `cargo bench` gives this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One large transaction.
    Large,
    /// One row per transaction.
    Single,
    /// From a commit to a Kafka consumer: direct, behind a journal, and there beside a destination that is away.
    Latency,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        all.filter(|kind| self.into.is_empty() || self.into.contains(kind)).collect()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let pg_recvlogical = match bench::client("pg_recvlogical") {
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
    let programs = Programs { pg_recvlogical, forebay, memory: options.memory.clone() };
    println!("{}", bench::machine());
    let wanted = options.kinds();
    let kafka = match wanted.contains(&Kind::Kafka) || options.wants(Part::Latency) {
        true => Some(Kafka::start(Broker::Plain).await),
        false => None,
    };
    for (part, shape) in [(Part::Large, Shape::OneTransaction), (Part::Single, Shape::RowPerTransaction)] {
        if options.wants(part) {
            throughput(&options, &programs, shape, kafka.as_ref()).await;
        }
    }
    if let Some(kafka) = kafka.as_ref().filter(|_| options.wants(Part::Latency)) {
        for setup in Setup::ALL {
            let measured = latency::measure(&programs, kafka, options.seconds, setup).await;
            println!("\n{measured}");
        }
    }
    ExitCode::SUCCESS
}

/// Writes the WAL of one workload and lets everybody read it, round by round.
async fn throughput(options: &Options, programs: &Programs, shape: Shape, kafka: Option<&Kafka>) {
    eprintln!("writing {} changes: {shape}", options.changes);
    let wal = Wal::write(shape, options.changes).await;
    let mut table = Table::new(shape, options.changes);
    for round in 1..=options.rounds {
        let ceiling = readers::ceiling(programs, &wal).await;
        eprintln!("round {round} (load {}): pg_recvlogical {ceiling}", bench::load());
        let mut runs = Vec::new();
        for kind in options.kinds() {
            let run = readers::forebay(programs, &wal, kind, kafka).await;
            eprintln!("round {round} (load {}): {kind} {run}", bench::load());
            runs.push((kind, run));
        }
        table.add(ceiling, runs);
    }
    println!("\n{table}");
}
