//! `forebay check`: everything that could keep the daemon from running, with what mends it, and nothing changed.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use forebay_api::{Blame, Fault, Finding, Mistake, Registry};
use futures::future::join_all;

use super::config_file::ConfigFile;
use super::server::Server;
use super::status::Seen;
use super::{Failure, print};
use crate::checkpoint::{FileStore, Found};
use crate::config::{self, Environment, Role, Settings, StoreSettings};
use crate::connectors;
use crate::validation::build_store;

/// A server that has not said within this how it is will keep the daemon waiting too.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Say what would keep the daemon from running, and what mends it
///
/// Reads the configuration, connects to every source and destination and looks at their settings and privileges,
/// at `data_dir` and at the admin port. It changes nothing anywhere. The exit code is that of the worst finding.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  forebay check
  forebay check --offline forebay.yaml     no connection, no secrets: for a commit hook or CI")]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Look at the file alone; variables that are not set are listed and are no mistake
    #[arg(long)]
    offline: bool,
}

/// What was found about one thing.
struct Section {
    title: String,
    findings: Vec<Finding>,
}

impl Check {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let path = self.config.path()?;
        let registry = connectors::registry();
        if self.offline {
            return offline(&path, &registry);
        }
        let settings = self.config.load(&registry, |_| false)?;
        let mut sections = vec![Section {
            title: path.display().to_string(),
            findings: vec![Finding::good(format!(
                "the configuration holds: sources {}, destinations {}",
                settings.sources.len(),
                settings.destinations.len()
            ))],
        }];
        let (own, servers) = tokio::join!(this_machine(&settings), servers(&settings, &registry));
        sections.extend(own.into_iter().chain(servers));
        print(&sections.iter().map(Section::text).collect::<String>())?;
        let findings = sections.iter().flat_map(|section| &section.findings);
        match worst(findings.filter_map(blame)) {
            None => print("\nnothing keeps it from running\n"),
            Some(blame) => Err(Failure::Found(blame)),
        }
    }
}

impl Section {
    /// The findings under their title, with the remedies indented.
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for finding in &self.findings {
            let mark = match (&finding.trouble, blame(finding)) {
                (None, _) => "✓",
                (Some(_), None) => "!",
                (Some(_), Some(_)) => "✗",
            };
            text += &format!("  {mark} {}\n", finding.fact);
            let remedy = finding.trouble.iter().flat_map(|trouble| trouble.remedy.lines());
            text.extend(remedy.map(|line| format!("      {line}\n")));
        }
        text
    }
}

fn blame(finding: &Finding) -> Option<Blame> {
    finding.trouble.as_ref()?.blame
}

/// Who must act first: where the configuration is wrong, what is outside cannot be judged.
fn worst(blames: impl Iterator<Item = Blame>) -> Option<Blame> {
    blames.min_by_key(|blame| match blame {
        Blame::Configuration => 0,
        Blame::Outside => 1,
        Blame::Defect => 2,
    })
}

fn offline(path: &Path, registry: &Registry) -> Result<(), Failure> {
    let missing = config::check_offline(path, registry, &Environment::of_process())?;
    let mut text = format!("{}\n  ✓ the configuration holds\n", path.display());
    for missing in &missing {
        let what = match missing.name.strip_prefix("file:") {
            Some(file) => format!("the file `{file}` is not here"),
            None => format!("the environment variable `{}` is not set here", missing.name),
        };
        text += &format!("  ! {what}: `{}` in line {} needs it\n", missing.option, missing.line);
    }
    print(&text)
}

/// `data_dir` and the admin port. A daemon that runs already has both, which is worth knowing and no mistake.
async fn this_machine(settings: &Settings) -> Vec<Section> {
    let running = Seen::of(&Server::of(settings)).await.ok().map(|daemon| daemon.name);
    let runs = |what: String| {
        let name = running.as_deref().unwrap_or_default();
        Finding::warning(
            format!("the daemon `{name}` runs and has {what}"),
            "stop it before you start another",
        )
    };
    let data_dir = settings.data_dir.display();
    let mut findings = vec![writable(&settings.data_dir)];
    match FileStore::find(&settings.data_dir) {
        Ok(Found::Nothing) => findings.push(Finding::good("no checkpoint is stored yet")),
        Ok(Found::Store(_)) => findings.push(Finding::good("the checkpoints can be read")),
        Ok(Found::Held(_)) if running.is_some() => findings.push(runs("the checkpoints open".to_owned())),
        Ok(Found::Held(fault)) | Err(fault) => findings.push(Finding::fault(&fault)),
    }
    let listen = settings.admin.listen;
    let port = match tokio::net::TcpListener::bind(listen).await {
        Ok(_) => Finding::good(format!("`{listen}` is free")),
        Err(_) if running.is_some() => runs(format!("`{listen}`")),
        Err(error) => Finding::bad(
            format!("`{listen}` cannot be listened on: {error}"),
            Blame::Outside,
            "set `admin.listen` to a free address, or stop what listens there",
        ),
    };
    vec![
        Section { title: format!("data_dir {data_dir}"), findings },
        Section { title: "admin".to_owned(), findings: vec![port] },
    ]
}

/// Whether files can be written in the folder, or it can be created.
fn writable(folder: &Path) -> Finding {
    let exists = folder.exists();
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let nearest = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(folder);
    let probe = nearest.join(format!(".forebay-check-{}", std::process::id()));
    let tried = File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
    match tried {
        Ok(()) if exists => Finding::good("it is writable"),
        Ok(()) => Finding::good("it can be created"),
        Err(error) => Finding::bad(
            format!("nothing can be written in `{}`: {error}", nearest.display()),
            Blame::Outside,
            "make it writable for this user, or set `data_dir` to another folder",
        ),
    }
}

/// Every source and destination, all at once, in the order of the configuration.
async fn servers(settings: &Settings, registry: &Registry) -> Vec<Section> {
    let role = |source| settings.journal_of(source).map_or(Role::Both, |journal| journal.role);
    // What another daemon reads, or delivers to, is looked at there.
    let read = settings.sources.iter().filter(|source| role(source) != Role::Delivery);
    let sources = join_all(read.map(async |source| {
        let entry = &registry.sources()[source.kind.as_str()];
        let setting = source.setting(false);
        let findings = within_limit((entry.check)(source.own.0.clone(), &setting)).await;
        Section { title: format!("source {} ({})", source.name, source.kind), findings }
    }));
    let delivers = settings.sources.iter().any(|source| role(source) != Role::Intake);
    let written = settings.destinations.iter().filter(|_| delivers);
    let destinations = join_all(written.map(async |destination| {
        let entry = &registry.destinations()[destination.kind.as_str()];
        let setting = destination.setting(settings);
        let findings = within_limit((entry.check)(destination.own.0.clone(), &setting)).await;
        Section { title: format!("destination {} ({})", destination.name, destination.kind), findings }
    }));
    let with_journal =
        settings.sources.iter().filter_map(|source| Some((source, settings.journal_of(source)?)));
    let journals = join_all(with_journal.map(async |(source, journal)| {
        let entry = &registry.journals()[journal.kind.as_str()];
        let setting = settings.journal_setting(source);
        let findings = within_limit((entry.check)(journal.own.0.clone(), &setting)).await;
        Section { title: format!("journal of {} ({})", source.name, journal.kind), findings }
    }));
    let stores = settings.validation.registry.iter().enumerate();
    let stores = join_all(stores.map(async |(index, store)| {
        let findings = within_limit(schemas(index, store, settings, registry)).await;
        Section { title: format!("schema registry {} ({})", index + 1, store.kind), findings }
    }));
    let (sources, journals, destinations, stores) = tokio::join!(sources, journals, destinations, stores);
    sources.into_iter().chain(journals).chain(destinations).chain(stores).collect()
}

/// Whether a store of the schema registry answers: with a list, or else that it has no schema of this name.
async fn schemas(
    index: usize,
    store: &StoreSettings,
    settings: &Settings,
    registry: &Registry,
) -> Vec<Finding> {
    let built = match build_store(index, store, settings, registry) {
        Ok(built) => built,
        Err(mistakes) => {
            let bad = |mistake: Mistake| {
                let help = mistake.help.unwrap_or_else(|| "correct the configuration".to_owned());
                Finding::bad(mistake.message, Blame::Configuration, help)
            };
            return mistakes.into_iter().map(bad).collect();
        }
    };
    let probe = "io.forebay/check/1-0-0".parse().expect("it is a key");
    let answer = match built.list(1).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => built.fetch(&probe).await.map(drop),
        Err(fault) => Err(fault),
    };
    vec![match answer {
        Ok(()) => Finding::good("it can be asked for schemas"),
        Err(fault) => Finding::fault(&fault),
    }]
}

async fn within_limit(look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(LOOK_LIMIT, look).await.unwrap_or_else(|_| {
        let silent = Fault::retryable("looking at it", format!("no answer within {LOOK_LIMIT:?}"));
        vec![Finding::fault(
            &silent.with_remedy("look whether a firewall or a wrong address swallows what is sent"),
        )]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_mended_before_what_is_outside() {
        use Blame::{Configuration, Defect, Outside};
        assert_eq!(worst([Outside, Configuration, Defect].into_iter()), Some(Configuration));
        assert_eq!(worst([Defect, Outside].into_iter()), Some(Outside));
        assert_eq!(worst(std::iter::empty()), None);
    }

    #[test]
    fn every_finding_has_its_mark_and_its_remedy_below() {
        let section = Section {
            title: "source shop (postgres)".to_owned(),
            findings: vec![
                Finding::good("`wal_level` is `logical`"),
                Finding::warning("no limit on WAL", "SET a;\nSET b;"),
                Finding::bad("no privilege", Blame::Outside, "ALTER ROLE app REPLICATION;"),
            ],
        };
        insta::assert_snapshot!(section.text(), @r"
        source shop (postgres)
          ✓ `wal_level` is `logical`
          ! no limit on WAL
              SET a;
              SET b;
          ✗ no privilege
              ALTER ROLE app REPLICATION;
        ");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_writable_where_its_parent_is() {
        let parent = tempfile::tempdir().unwrap();
        assert!(writable(&parent.path().join("a/b")).trouble.is_none());
        assert!(writable(parent.path()).trouble.is_none());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left behind");
        assert!(writable(Path::new("/proc/forebay")).trouble.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_does_not_hold_up_the_check() {
        let findings = within_limit(std::future::pending()).await;
        assert_eq!(blame(&findings[0]), Some(Blame::Outside));
    }
}
