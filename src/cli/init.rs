//! `forebay init`: a configuration to begin with, from what is in a database.
//!
//! Invariants: a file that is there stays as it is unless it is said; no secret is written; the core knows no connector,
//! but takes what each proposes.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use forebay_api::{Blame, Fault, Initial, Registry};

use super::console::Console;
use super::schema::config_schema;
use super::{Failure, print};
use crate::connectors;

/// Holds the URL of the source where no option does, so that its password is in no list of processes.
const VARIABLE: &str = "DATABASE_URL";

/// The output that is none of a file.
const STDOUT: &str = "-";

/// Write a configuration to begin with, from what is in a database
///
/// Connects to the database and only reads there. Every table stands in the file with its rows, size, key, replica
/// identity and how long its copy may take; one that cannot be read stands there as a comment, with the reason and the
/// SQL that mends it. `forebay check` takes the file as it is. No password is written: the file names variables instead.
///
/// Without a database a template is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay init --source postgres://forebay:secret@db.internal/shop
  export DATABASE_URL=postgres://…; forebay init      the same, with the password in no history of commands
  forebay init --destination kafka --output shop.yaml
  forebay init --output -                             on standard output
  forebay init && forebay check && forebay run")]
pub(super) struct Init {
    /// The database whose changes are to be read, as a URL [env: DATABASE_URL]
    #[arg(short, long, value_name = "URL")]
    source: Option<String>,
    /// Where events go to, a type that `forebay list` names; may be repeated. The others stand in the file as comments
    #[arg(short, long, value_name = "TYPE", default_value = "file")]
    destination: Vec<String>,
    /// The file to write; `-`: standard output. The schema that editors check it by is written beside it
    #[arg(short, long, value_name = "FILE", default_value = "forebay.yaml")]
    output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

impl Init {
    pub(super) async fn run(self, console: &Console) -> Result<(), Failure> {
        let registry = connectors::registry();
        self.refuse_unknown_destinations(&registry)?;
        let to_stdout = self.output == Path::new(STDOUT);
        if !to_stdout && !self.force && self.output.exists() {
            return Err(self.is_there().into());
        }
        let variable = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
        let url = self.source.clone().or(variable);
        let initial = source(url.as_deref(), &registry).await?;
        let schema = self.schema_path();
        let text = configuration(&initial, &self.destination, &schema_name(&schema), &registry);
        if to_stdout {
            print(&text)?;
            console.note(&format!(
                "`forebay schema > {}` writes the schema that the first line names",
                schema.display()
            ));
        } else {
            self.write(&text)?;
            write_schema(&schema, &registry, console)?;
            console.note(&format!(
                "`{}` is written; `forebay check {0}` says whether it can run",
                self.output.display()
            ));
        }
        for note in &initial.notes {
            console.note(note);
        }
        Ok(())
    }

    fn refuse_unknown_destinations(&self, registry: &Registry) -> Result<(), Fault> {
        let proposed = || registry.destinations().iter().filter(|(_, entry)| !entry.example.is_empty());
        let is_known = |wanted: &&String| proposed().any(|(kind, _)| kind == wanted);
        let Some(unknown) = self.destination.iter().find(|wanted| !is_known(wanted)) else { return Ok(()) };
        let known: Vec<String> = proposed().map(|(kind, _)| format!("`{kind}`")).collect();
        let error = format!("there is no type of destination `{unknown}`");
        Err(Fault::fatal("choosing a destination", Blame::Configuration, error)
            .with_remedy(format!("name one of {}", known.join(", "))))
    }

    fn is_there(&self) -> Fault {
        let error = "it is there already";
        Fault::fatal(format!("writing `{}`", self.output.display()), Blame::Configuration, error)
            .with_remedy("name another file with `--output`, or replace it with `--force`")
    }

    fn write(&self, text: &str) -> Result<(), Fault> {
        let opened = match self.force {
            true => File::create(&self.output),
            false => File::create_new(&self.output),
        };
        let written =
            opened.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => self.is_there(),
            _ => unwritable(&self.output, error),
        })
    }

    /// `forebay.schema.json` beside `forebay.yaml`.
    fn schema_path(&self) -> PathBuf {
        match self.output == Path::new(STDOUT) {
            true => PathBuf::from("forebay.schema.json"),
            false => self.output.with_extension("schema.json"),
        }
    }
}

/// What the connector writes that knows the URL.
async fn source(url: Option<&str>, registry: &Registry) -> Result<Initial, Fault> {
    for entry in registry.sources().values() {
        if let Some(initial) = (entry.init)(url).await? {
            return Ok(initial);
        }
    }
    let known: Vec<String> = registry.sources().keys().map(|kind| format!("`{kind}://…`")).collect();
    // Behind the scheme there may be a password.
    let error = match url.and_then(|url| url.split_once("://")) {
        Some((scheme, _)) => format!("no source of this build reads `{scheme}://…`"),
        None => "it is no URL of a database".to_owned(),
    };
    Err(Fault::fatal("reading the URL of the source", Blame::Configuration, error)
        .with_remedy(format!("write one of {}", known.join(", "))))
}

/// The whole file.
fn configuration(initial: &Initial, wanted: &[String], schema: &str, registry: &Registry) -> String {
    let mut text = format!(
        "# yaml-language-server: $schema=./{schema}\n\
         #\n\
         # Written by `forebay init`. An editor that knows the line above completes and explains every key.\n\
         # `${{NAME}}` is replaced by the environment variable, `${{file:/run/secrets/name}}` by the file's content.\n\
         \n\
         name: forebay                          # of this daemon, in every event\n\
         environment: development               # in every event\n\
         data_dir: ./data                       # checkpoints and dead letters; must outlive the process\n\
         # admin: {{listen: 127.0.0.1:9080}}      # health, metrics and status\n\
         \n\
         sources:\n  \
         # The name of a source is in the id of every event, so it is for ever.\n  \
         {}:\n{}\
         \n\
         destinations:\n",
        initial.name,
        indented(&initial.yaml, "    ")
    );
    for kind in wanted {
        text += &destination(kind, registry.destinations()[kind.as_str()].example, "  ");
    }
    let others = registry.destinations().iter();
    let others =
        others.filter(|(kind, entry)| !entry.example.is_empty() && !wanted.iter().any(|own| own == *kind));
    for (kind, entry) in others {
        text += &format!("\n{}", destination(kind, entry.example, "  # "));
    }
    text
}

/// One destination, named after its type.
fn destination(kind: &str, example: &str, before: &str) -> String {
    format!("{before}{kind}:\n{}", indented(example, &format!("{before}  ")))
}

/// Lines with something before each that is not empty.
fn indented(yaml: &str, before: &str) -> String {
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{before}{line}\n") };
    yaml.lines().map(line).collect()
}

fn schema_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes the schema that editors check the file by. One that is there may be of another build, which is said.
fn write_schema(path: &Path, registry: &Registry, console: &Console) -> Result<(), Fault> {
    let schema = config_schema(registry);
    match File::create_new(path) {
        Ok(mut file) => file.write_all(schema.as_bytes()).map_err(|error| unwritable(path, error)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if std::fs::read(path).is_ok_and(|there| there != schema.as_bytes()) {
                let shown = path.display();
                console.note(&format!(
                    "`{shown}` was there and is not that of this build; `forebay schema > {shown}` renews it"
                ));
            }
            Ok(())
        }
        Err(error) => Err(unwritable(path, error)),
    }
}

fn unwritable(path: &Path, error: io::Error) -> Fault {
    Fault::fatal(format!("writing `{}`", path.display()), Blame::Outside, error)
        .with_remedy("name a file with `--output` whose folder exists and is writable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn initial() -> Initial {
        Initial {
            name: "shop".to_owned(),
            yaml: "type: postgres\nurl: ${DATABASE_URL}\n\ntables: [public.orders]\n".to_owned(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn every_destination_that_is_proposed_is_one_that_holds() {
        let registry = connectors::registry();
        let proposed = registry.destinations().iter().filter(|(_, entry)| !entry.example.is_empty());
        let kinds: Vec<String> = proposed.map(|(kind, _)| (*kind).to_owned()).collect();
        assert!(kinds.contains(&"file".to_owned()), "{kinds:?}");
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment =
            [("DATABASE_URL", "postgres://u@h/d"), ("COPY_URL", "postgres://u@h/e")].into_iter().collect();
        for wanted in kinds.iter().map(|kind| vec![kind.clone()]).chain([kinds.clone()]) {
            let path = folder.path().join("forebay.yaml");
            std::fs::write(&path, configuration(&initial(), &wanted, "s.json", &registry)).unwrap();
            let settings = config::load(&path, &registry, &environment);
            let settings = settings.unwrap_or_else(|error| panic!("{wanted:?}: {}", error.render(false)));
            assert_eq!(settings.destinations.len(), wanted.len());
        }
    }

    #[tokio::test]
    async fn a_url_of_no_known_kind_is_refused_without_its_password() {
        let refused = source(Some("mysql://root:secret@h/d"), &connectors::registry()).await.unwrap_err();
        let said = format!("{refused} {:?}", refused.remedy());
        assert!(
            said.contains("mysql://") && said.contains("postgres://") && !said.contains("secret"),
            "{said}"
        );
        assert!(matches!(refused, Fault::Fatal { blame: Blame::Configuration, .. }));
    }
}
