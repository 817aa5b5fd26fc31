//! Puts PostgreSQL servers into the cache before the tests want them, so that a machine without a network is told so
//! once, at the beginning. `integration/run` calls it with the major versions that the tests use.

use std::process::ExitCode;

use forebay_integration::Postgres;

/// As `forebay` does: something outside must change.
const UNAVAILABLE: u8 = 69;
/// As `forebay` does: only the command line can mend it.
const MISUSED: u8 = 78;

#[tokio::main]
async fn main() -> ExitCode {
    for argument in std::env::args().skip(1) {
        let Ok(major) = argument.parse() else {
            eprintln!("`{argument}` is not a major version of PostgreSQL");
            return ExitCode::from(MISUSED);
        };
        match Postgres::bring(major).await {
            Ok(binaries) => println!("  PostgreSQL {}", binaries.version()),
            Err(error) => {
                eprintln!("{}", forebay_integration::with_causes(&error));
                return ExitCode::from(UNAVAILABLE);
            }
        }
    }
    ExitCode::SUCCESS
}
