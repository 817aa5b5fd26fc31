//! How fast the journal on disk is: written in bulk beside plain writes of the same bytes, acknowledged to many senders,
//! and read again by one who is far behind.
//!
//! ```text
//! cargo bench -p forebay-integration --bench journal
//! cargo bench -p forebay-integration --bench journal -- --mib 64 --seconds 2 --rounds 1      a look
//! cargo bench -p forebay-integration --bench journal -- --folder /mnt/disk
//! ```
//! Plain writes are what the disk gives: the same bytes into a file of zeros, synced as often as sixteen deliveries
//! share a sync. Rates are compared within a round, because machines drift. What a sender waits for goes the whole way
//! through a pipeline: outlet, stage, lane, journal, ledger, ticket.

mod events;
mod latency;
mod throughput;

use std::path::PathBuf;

use clap::Parser;
use forebay_integration::bench;

#[derive(Parser)]
struct Options {
    /// How much is written in bulk.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// How long each number of senders sends.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where; on the disk that shall be measured.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    println!("{}", bench::machine());
    for round in 1..=options.rounds {
        let folder = tempfile::tempdir_in(&parent).expect("the folder can be written to");
        println!("\nround {round} (load {})", bench::load());
        throughput::measure(folder.path(), options.mib << 20).await;
        for senders in [1, 16, 256, 4096] {
            let folder = tempfile::tempdir_in(&parent).expect("the folder can be written to");
            println!("{}", latency::measure(folder.path(), senders, options.seconds).await);
        }
    }
}
