//! Forebay as a process: started with a configuration, watched through its admin port, stopped, and killed.
//!
//! It lives in a folder of its own, which is its working directory, so that relative paths in a configuration are the
//! test's. Its folder survives its restarts, and is shown in part when a test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use forebay::demo::process::{Process, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::{PATIENCE, free_ports};

/// How often the admin port is asked, while a test waits for what it tells.
const ASK_PAUSE: Duration = Duration::from_millis(20);
/// No answer of the admin port takes this long, unless the daemon hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How much of its log a failure shows.
const LOG_LINES: usize = 60;

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    process: Option<Process>,
    program: PathBuf,
    /// On top of the test's own environment, from the next start on.
    environment: Vec<(String, String)>,
    admin_port: u16,
    client: reqwest::Client,
    dir: TempDir,
}

impl Daemon {
    /// A daemon that is not started yet. `program` is `env!("CARGO_BIN_EXE_forebay-under-test")`, which only a test can
    /// say. `config` needs `sources` and `destinations` only; see [`Daemon::configure`].
    pub fn new(program: impl AsRef<Path>, config: &str) -> Self {
        // An error says that another test was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let daemon = Self {
            process: None,
            program: program.as_ref().to_owned(),
            environment: Vec::new(),
            admin_port: free_ports(1),
            client: reqwest::Client::builder().timeout(ANSWER_LIMIT).build().expect("its settings are right"),
            dir: tempfile::Builder::new()
                .prefix("forebay-daemon-")
                .tempdir()
                .expect("the folder is writable"),
        };
        daemon.configure(config);
        daemon
    }

    /// Writes the configuration for the next start. `name`, `data_dir` and `admin` are put in front unless it has them.
    pub fn configure(&self, config: &str) {
        let usual = [
            ("name", "test".to_owned()),
            ("data_dir", "./data".to_owned()),
            ("admin", format!("{{listen: 127.0.0.1:{}}}", self.admin_port)),
        ];
        let mut whole = String::new();
        for (key, value) in usual {
            if !config.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))) {
                whole += &format!("{key}: {value}\n");
            }
        }
        whole += config;
        std::fs::write(self.path("forebay.yaml"), whole).expect("its folder is writable");
    }

    /// Sets an environment variable from the next start on, for instance `FOREBAY_STEP` to die at a step.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.unset_env(name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Takes back what [`Daemon::set_env`] did.
    pub fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// A file or folder of the daemon's working directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Starts it and returns when its admin server says that it lives.
    pub async fn start(&mut self) {
        self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while self.get("/live").await.is_none_or(|(status, _)| status != 200) {
            self.must_run("starting");
            assert!(
                Instant::now() < deadline,
                "the daemon does not live within {PATIENCE:?}\n{}",
                self.said()
            );
            sleep(ASK_PAUSE).await;
        }
    }

    /// Starts it and returns at once, for a start that shall fail or take long.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the daemon is running already");
        let open = |name: &str| File::options().create(true).append(true).open(self.path(name));
        let mut command = Command::new(&self.program);
        command.args(["run", "--config", "forebay.yaml"]).current_dir(self.dir.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(open("stdout").expect("its folder is writable"));
        command.stderr(open("stderr").expect("its folder is writable"));
        let process = Process::spawn(&mut command, Signal::KILL, Some(self.dir.path()));
        self.process =
            Some(process.unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display())));
    }

    /// SIGKILL, now. Returns when the process is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// SIGTERM, and waits for the exit code.
    pub async fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.exit_code().await
    }

    /// Sends it a signal; a second SIGTERM aborts, SIGSTOP makes it hang.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the daemon was started");
        process.signal(signal).expect("a child can be signalled");
    }

    /// Waits until it ends by itself, and gives its exit code.
    pub async fn exit_code(&mut self) -> i32 {
        let status = self.ended().await;
        status
            .code()
            .unwrap_or_else(|| panic!("the daemon did not exit but died of {status}\n{}", self.said()))
    }

    /// Waits until it ends, in whatever way.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the daemon was started");
        let ended = process.wait(PATIENCE).await.expect("a child can be waited for");
        ended.unwrap_or_else(|| panic!("the daemon does not end within {PATIENCE:?}\n{}", self.said()))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().expect("a child can be waited for").is_none())
    }

    /// The process's number, for what the system tells about it.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon was started").id()
    }

    /// Runs another command of the program, such as `check`, in the same folder and environment to its end.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments).current_dir(self.dir.path()).kill_on_drop(true).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = timeout(PATIENCE, command.output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("`forebay {arguments:?}` does not end within {PATIENCE:?}"));
        output.unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()))
    }

    /// What `/status` tells.
    pub async fn status(&self) -> Value {
        let Some((200, body)) = self.get("/status").await else {
            panic!("the daemon does not answer\n{}", self.said());
        };
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in the status: {body}"))
    }

    /// Waits until `/status` is as wanted, and gives it. Fails at once when the daemon ends. `what` is for that message.
    pub async fn wait_until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        loop {
            if let Some((200, body)) = self.get("/status").await {
                last = serde_json::from_str(&body)
                    .unwrap_or_else(|error| panic!("{error} in the status: {body}"));
                if holds(&last) {
                    return last;
                }
            }
            self.must_run(what);
            if Instant::now() >= deadline {
                panic!("after {PATIENCE:?} still not: {what}\nlast status: {last:#}\n{}", self.said());
            }
            sleep(ASK_PAUSE).await;
        }
    }

    /// The sum of a metric over all its series that have these labels, or nothing when there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let (_, body) = self.get("/metrics").await?;
        sum_of(&body, name, labels)
    }

    /// Status code and body of a GET on the admin port, or nothing when nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.admin_port);
        let answer = self.client.get(url).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The port of its admin server.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// All that it wrote to stderr, over all its runs.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// All that it wrote to stdout, over all its runs.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    fn read(&self, file: &str) -> String {
        let bytes = std::fs::read(self.path(file)).unwrap_or_default(); // it was never started: it said nothing
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn must_run(&mut self, doing: &str) {
        let ended = self.process.as_mut().map(|process| process.ended().expect("a child can be waited for"));
        match ended {
            Some(None) => {}
            Some(Some(status)) => panic!("the daemon ended ({status}) while: {doing}\n{}", self.said()),
            None => panic!("the daemon is not running while: {doing}"),
        }
    }

    /// The end of its log, for a message.
    fn said(&self) -> String {
        let stderr = self.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        format!("it said:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon on port {}: {}", self.admin_port, self.said());
        }
    }
}

/// Adds up the series of `name` in a page of Prometheus text.
fn sum_of(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let Some((series, value)) = rest.rsplit_once(' ') else { continue };
        if !(series.is_empty() || series.starts_with('{')) {
            continue; // another metric, whose name begins in the same way
        }
        let all = labels.iter().all(|(label, value)| {
            let pair = format!("{label}=\"{value}\"");
            series.trim_matches(['{', '}']).split(',').any(|found| found == pair)
        });
        if all {
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error} in the metric: {line}"));
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_the_series_that_have_the_labels() {
        let page = "# TYPE a counter\na{x=\"1\",y=\"p\"} 2\na{x=\"1\",y=\"q\"} 3\na{x=\"11\",y=\"p\"} 100\na_b{x=\"1\"} 7\nc 4\n";
        assert_eq!(sum_of(page, "a", &[("x", "1")]), Some(5.0));
        assert_eq!(sum_of(page, "a", &[("x", "1"), ("y", "q")]), Some(3.0));
        assert_eq!(sum_of(page, "c", &[]), Some(4.0));
        assert_eq!(sum_of(page, "a", &[("x", "2")]), None);
    }

    #[test]
    fn what_a_configuration_says_itself_is_not_put_in_front() {
        let daemon = Daemon::new("forebay", "data_dir: elsewhere\nsources: {}\n");
        let written = std::fs::read_to_string(daemon.path("forebay.yaml")).unwrap();
        assert!(written.starts_with("name: test\nadmin: {listen: 127.0.0.1:"), "{written}");
        assert_eq!(written.matches("data_dir").count(), 1, "{written}");
    }
}
