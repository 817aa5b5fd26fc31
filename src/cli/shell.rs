//! What packages ship besides the program: shell completions and man pages, made from the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use forebay_api::{Blame, Fault};

use super::{Failure, print};

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay completions bash > /etc/bash_completion.d/forebay
  forebay completions zsh > ~/.zfunc/_forebay
  forebay completions fish > ~/.config/fish/completions/forebay.fish")]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the man page, or write those of all commands into a folder
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay man | man -l -
  forebay man --to /usr/local/share/man/man1")]
pub(super) struct Man {
    /// The folder, which must exist
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self, mut command: clap::Command) -> Result<(), Failure> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

impl Man {
    pub(super) fn run(self, command: clap::Command) -> Result<(), Failure> {
        let Some(folder) = self.to else {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text).expect("a vector takes what is written to it");
            return print(&String::from_utf8_lossy(&text));
        };
        clap_mangen::generate_to(command, &folder).map_err(|error| {
            Fault::fatal(format!("writing man pages to `{}`", folder.display()), Blame::Outside, error)
                .with_remedy("name a folder that exists and is writable")
                .into()
        })
    }
}
