//! The command line: arguments, then a configuration, then one command, then an exit code.
//!
//! Invariants: what a command is asked for goes to stdout (of `run --dry-run` and `tail` only events), everything
//! else to stderr; `exit_code` is the only place that knows exit codes; a command that fails says so once, with
//! the causes and the remedy. Nothing here ends the process but a return from [`main`].

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use forebay_api::{Blame, Fault};
use tokio::runtime::{Builder, Runtime};

use crate::config::ConfigError;
use crate::daemon::Finished;

mod check;
mod checkpoint;
mod config_file;
mod console;
mod init;
mod list;
mod orders;
mod progress;
mod run;
mod schema;
mod server;
mod shell;
mod snapshot;
mod status;
mod table;

#[cfg(test)]
mod tests;

use console::{Console, LogOptions};

/// What a task that was left behind (a lookup of a name, a read from a terminal) may still take at the end.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Few threads do: each source that must read fast owns a thread besides these, and small containers have one core.
const WORKER_THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// Turns the changes of a database into self-describing JSON events and delivers each of them to every place that
/// needs it, without losing one.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    long_version = LONG_VERSION.as_str(),
    arg_required_else_help = true,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}"),
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogOptions,
}

/// In the order in which somebody meets them.
#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Check(check::Check),
    Run(run::Run),
    /// Watch the whole way on a throw-away database, in a minute: a copy, changes, two crashes, and a proof
    #[cfg(feature = "demo")]
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(crate::demo::Options),
    Tail(run::Tail),
    Status(status::StatusOptions),
    Snapshot(snapshot::Snapshot),
    Reload(orders::Reload),
    Replay(orders::Replay),
    Journal(orders::Journal),
    Checkpoint(checkpoint::Checkpoint),
    /// Print the connectors and formats of this build
    List,
    Schema(schema::Schema),
    Completions(shell::Completions),
    Man(shell::Man),
}

const EXAMPLES: &str = "\
Examples:
  forebay init --source postgres://…   write a forebay.yaml for a database
  forebay check                        does forebay.yaml hold, are all servers as they must be?
  forebay run --dry-run                see the events, leave nothing behind
  forebay run -c /etc/forebay.yaml     run until stopped
  forebay status                       what the daemon on this machine does
  forebay run --help                   more about one command";

#[cfg(feature = "demo")]
const DEMO_EXAMPLES: &str = "\
Examples:
  forebay demo
  forebay demo --orders 20000
  forebay demo --keep --url postgres://postgres@127.0.0.1/postgres";

const ENVIRONMENT: &str = "\
Environment:
  FOREBAY_CONFIG       the configuration file
  FOREBAY_LOG          which logs to write, such as `debug` or `warn,forebay_postgres=trace`
  FOREBAY__A__B        overrides the key `a.b` of the configuration
  NO_COLOR             no colours

Exit codes:
   0   done; stopped and drained
  78   only the configuration or the command line can mend it
  69   something outside must change: a server, a privilege, a port, a disk
  75   stopped with work left, which comes again at the next start
   1   anything else";

static LONG_VERSION: LazyLock<String> = LazyLock::new(list::version);

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// Something was attempted and failed.
    Fault(Fault),
    /// `check` has said what keeps the daemon from running.
    Found(Blame),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return misused(&usage),
    };
    let console = Console::new(&cli.log);
    let ended = start(cli, &console);
    if let Err(failure) = &ended {
        console.tell(failure);
    }
    ExitCode::from(exit_code(&ended))
}

/// The one place that knows exit codes.
fn exit_code(ended: &Result<Finished, Failure>) -> u8 {
    match ended {
        Ok(Finished::Drained) => 0,
        Ok(Finished::WorkLeft) => 75,
        Err(Failure::Config(_)) => 78,
        Err(Failure::Fault(Fault::Retryable { .. })) => 69,
        Err(Failure::Fault(Fault::Fatal { blame, .. }) | Failure::Found(blame)) => match blame {
            Blame::Configuration => 78,
            Blame::Outside => 69,
            Blame::Defect => 1,
        },
    }
}

/// What clap has to say: help and version are no failure, anything else only the command line can mend.
fn misused(usage: &clap::Error) -> ExitCode {
    // Where not even this can be printed, the exit code is all that is left to say.
    let _ = usage.print();
    let ended =
        if usage.use_stderr() { Err(Failure::Found(Blame::Configuration)) } else { Ok(Finished::Drained) };
    ExitCode::from(exit_code(&ended))
}

fn start(cli: Cli, console: &Console) -> Result<Finished, Failure> {
    console.start_logging(&cli.log, matches!(cli.command, Command::Run(_)))?;
    let runtime = runtime().map_err(|error| Fault::fatal("starting threads", Blame::Outside, error))?;
    let ended = runtime.block_on(perform(cli.command, console));
    console.bar.finish_and_clear();
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.clamp(*WORKER_THREADS.start(), *WORKER_THREADS.end());
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn perform(command: Command, console: &Console) -> Result<Finished, Failure> {
    match command {
        Command::Run(run) => return Box::pin(run.run(console)).await,
        Command::Tail(tail) => return Box::pin(tail.run()).await,
        #[cfg(feature = "demo")]
        Command::Demo(options) => return Ok(Box::pin(crate::demo::run(options)).await?),
        Command::Init(init) => init.run(console).await,
        Command::Check(check) => check.run().await,
        Command::Status(status) => status.run().await,
        Command::Snapshot(snapshot) => snapshot.run().await,
        Command::Reload(reload) => reload.run().await,
        Command::Replay(replay) => replay.run(console).await,
        Command::Journal(journal) => journal.run().await,
        Command::Checkpoint(checkpoint) => checkpoint.run().await,
        Command::List => print(&list::connectors()),
        Command::Schema(schema) => schema.run().await,
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
    }?;
    Ok(Finished::Drained)
}

/// Writes to stdout what a command was asked for. A reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Fault::fatal("writing to stdout", Blame::Outside, error).into())
        }
        _ => Ok(()),
    }
}
