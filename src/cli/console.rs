//! What a person or a log collector sees on stderr: logs, the line of progress, and why a command failed.
//!
//! Invariant: with `--log json` every line is one JSON object; without it nothing is coloured but on a terminal.

use std::io::{self, IsTerminal, Write};

use annotate_snippets::{Group, Level, Renderer};
use clap::{ArgAction, Args, ValueEnum};
use forebay_api::{Blame, Fault};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::ConfigError;

/// Which logs are written where no option says.
const VARIABLE: &str = "FOREBAY_LOG";

/// Draws of the line of progress a second.
const DRAWS: u8 = 4;

/// How much is told, and in which form. Every command takes these.
#[derive(Debug, Args)]
pub(super) struct LogOptions {
    /// How logs and failures are written to stderr
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "text",
        help_heading = "Logs"
    )]
    log: LogForm,
    /// Log more: every batch; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logs")]
    verbose: u8,
    /// Log warnings and errors only, and show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logs")]
    quiet: bool,
}

/// The form of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// For people
    Text,
    /// One JSON object a line, for collectors
    Json,
}

/// The stderr of one command.
pub(super) struct Console {
    form: LogForm,
    colour: bool,
    /// Whether somebody looks who wants to see progress.
    watched: bool,
    /// The line of progress; hidden until [`Console::show_progress`].
    pub(super) bar: ProgressBar,
}

impl Console {
    /// Looks at what stderr is.
    pub(super) fn new(options: &LogOptions) -> Console {
        let terminal = io::stderr().is_terminal() && options.log == LogForm::Text;
        Console {
            form: options.log,
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            watched: terminal && !options.quiet,
            bar: ProgressBar::hidden(),
        }
    }

    /// The line of progress, shown from here on where somebody looks.
    pub(super) fn show_progress(&self) -> ProgressBar {
        if self.watched {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            self.bar.set_style(style.expect("the template is right"));
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS));
        }
        self.bar.clone()
    }

    /// From here on everything that is logged goes to stderr. A daemon tells what it does, another command only what
    /// goes wrong on the way.
    pub(super) fn start_logging(&self, options: &LogOptions, daemon: bool) -> Result<(), Fault> {
        let filter = filter(options, daemon, std::env::var(VARIABLE).ok().as_deref())?;
        let bar = self.bar.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || AroundBar(bar.clone()))
            .with_ansi(self.colour);
        let started = match self.form {
            LogForm::Text => logs.with_target(false).try_init(),
            LogForm::Json => logs.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| Fault::fatal("starting to log", Blame::Defect, error))
    }

    /// Says something that whoever called should know, in its own lines.
    pub(super) fn note(&self, text: &str) {
        let told = match self.form {
            LogForm::Text => {
                let mut lines = text.lines();
                let first = lines.next().unwrap_or_default();
                let rest = lines.map(|line| format!("      {line}\n"));
                format!("note: {first}\n{}", rest.collect::<String>())
            }
            LogForm::Json => line("INFO", "note", json!({"note": text})),
        };
        // As with failures: where stderr is gone there is nobody to tell.
        let _ = io::stderr().write_all(told.as_bytes());
    }

    /// Says why a command failed: what was attempted, every cause, the remedy.
    pub(super) fn tell(&self, failure: &Failure) {
        let text = match (failure, self.form) {
            // `check` has said it.
            (Failure::Found(_), _) => return,
            (Failure::Config(error), LogForm::Text) => error.render(self.colour),
            (Failure::Fault(fault), LogForm::Text) => picture(fault, self.colour),
            (Failure::Config(error), LogForm::Json) => config_lines(error),
            (Failure::Fault(fault), LogForm::Json) => {
                line("ERROR", "forebay failed", json!({"error": fault.to_string(), "remedy": fault.remedy()}))
            }
        };
        // Where stderr is gone there is nobody to tell; the exit code still says it.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// The filter of the options; what the variable says goes before both.
fn filter(options: &LogOptions, daemon: bool, variable: Option<&str>) -> Result<EnvFilter, Fault> {
    if let Some(text) = variable.filter(|text| !text.is_empty()) {
        return EnvFilter::try_new(text).map_err(|error| {
            Fault::fatal(format!("reading `{VARIABLE}`"), Blame::Configuration, error)
                .with_remedy("write it like `debug` or `warn,forebay_postgres=trace`")
        });
    }
    // `forebay` is the beginning of the names of all our crates
    let text = match (options.quiet, options.verbose, daemon) {
        (true, ..) => "warn",
        (false, 0, false) => "warn",
        (false, 0, true) => "warn,forebay=info",
        (false, 1, _) => "info,forebay=debug",
        (false, 2.., _) => "debug,forebay=trace",
    };
    Ok(EnvFilter::new(text))
}

/// A fault as the configuration's mistakes are drawn.
fn picture(fault: &Fault, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let chain = fault.chain();
    let (doing, causes) = chain.split_first().expect("a fault says what was attempted");
    let mut group = Group::with_title(Level::ERROR.primary_title(doing));
    let mut said = doing;
    for cause in causes {
        // some libraries repeat their cause in their own message
        if !said.ends_with(cause.as_str()) {
            group = group.element(Level::NOTE.with_name("cause").message(cause));
        }
        said = cause;
    }
    if let Some(remedy) = fault.remedy() {
        group = group.element(Level::HELP.with_name("remedy").message(remedy));
    }
    renderer.render(&[group]) + "\n"
}

/// One line for each mistake of a configuration.
fn config_lines(error: &ConfigError) -> String {
    let lines = error.problems.iter().map(|problem| {
        let place = error.place(problem);
        let fields = json!({
            "file": error.file,
            "line": place.map(|(line, _)| line),
            "column": place.map(|(_, column)| column),
            "error": problem.message,
            "remedy": problem.help,
        });
        line("ERROR", "the configuration cannot be used", fields)
    });
    lines.collect()
}

/// A line beside those of the logs, which a filter cannot take away.
fn line(level: &str, message: &str, fields: serde_json::Value) -> String {
    let mut whole =
        json!({"timestamp": jiff::Timestamp::now().to_string(), "level": level, "message": message});
    if let (Some(whole), serde_json::Value::Object(fields)) = (whole.as_object_mut(), fields) {
        whole.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    whole.to_string() + "\n"
}

/// Writes log lines above the line of progress.
struct AroundBar(ProgressBar);

impl Write for AroundBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(verbose: u8, quiet: bool) -> LogOptions {
        LogOptions { log: LogForm::Text, verbose, quiet }
    }

    #[test]
    fn a_failure_says_what_was_attempted_every_cause_once_and_the_remedy() {
        let cause = io::Error::other("Address already in use");
        let fault = Fault::fatal("listening on `127.0.0.1:9080`", Blame::Outside, cause)
            .with_remedy("set `admin.listen` to a free address");
        insta::assert_snapshot!(picture(&fault, false), @r"
        error: listening on `127.0.0.1:9080`
         |
         = cause: Address already in use
         = remedy: set `admin.listen` to a free address
        ");
    }

    #[test]
    fn a_failure_in_json_is_one_line_with_the_same_fields() {
        let failure = line("ERROR", "forebay failed", json!({"error": "a: b", "remedy": null}));
        let value: serde_json::Value = serde_json::from_str(&failure).unwrap();
        assert_eq!(value["error"], "a: b");
        assert_eq!(value.get("remedy"), None);
        assert_eq!(failure.lines().count(), 1);
    }

    #[test]
    fn the_variable_goes_before_the_options() {
        assert_eq!(filter(&options(2, false), true, Some("error")).unwrap().to_string(), "error");
        assert_eq!(filter(&options(0, true), true, None).unwrap().to_string(), "warn");
        assert_eq!(filter(&options(0, false), true, None).unwrap().to_string(), "forebay=info,warn");
        let refused = filter(&options(0, false), true, Some("forebay=loud")).unwrap_err();
        assert!(matches!(refused, Fault::Fatal { blame: Blame::Configuration, .. }), "{refused}");
    }
}
