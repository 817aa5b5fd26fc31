//! `forebay schema`: the JSON Schemas that this build goes by.

use clap::{Args, ValueEnum};

use super::{Failure, print};
use crate::{config, connectors};

/// The schema of `format: forebay`, written by hand beside the text that describes it.
pub(crate) const ENVELOPE: &str = include_str!("../../config/envelope.schema.json");

/// Print a JSON Schema
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay schema > schema.json         for `# yaml-language-server: $schema=./schema.json`
  forebay schema envelope              what every event obeys in the format `forebay`")]
pub(super) struct Schema {
    /// Of what
    #[arg(value_enum, default_value = "config")]
    of: Of,
}

/// What there are schemas of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    /// The configuration file, with the connectors of this build
    Config,
    /// Events in the format `forebay`
    Envelope,
}

impl Schema {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.of {
            Of::Config => print(&config_schema()),
            Of::Envelope => print(ENVELOPE),
        }
    }
}

fn config_schema() -> String {
    format!("{:#}\n", config::schema(&connectors::registry()))
}
