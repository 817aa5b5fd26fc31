//! The daemon's program; everything is in [`forebay::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::cli::main()
}
