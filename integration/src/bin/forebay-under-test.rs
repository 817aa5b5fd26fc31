//! The daemon with every `step!` armed; tests find it by `env!("CARGO_BIN_EXE_forebay-under-test")`.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::cli::main()
}
