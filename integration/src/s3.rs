//! A real S3 server, started by `integration/servers/s3.sh`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use forebay::demo::process::{Process, Signal};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, free_ports};

/// How often we look whether it serves.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Where it has to be built first, that takes a minute on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(600);

/// A server with its buckets.
#[derive(Debug)]
pub struct S3 {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
}

impl S3 {
    /// Starts one and returns when it serves.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("forebay-s3-").tempdir();
        let dir = dir.expect("the temporary folder is writable");
        let mut server = Self { process: None, port: free_ports(1), dir };
        server.start_again().await;
        server
    }

    /// Starts it again after [`S3::kill`], on the same buckets and port.
    pub async fn start_again(&mut self) {
        let log = self.dir.path().join("log");
        let output = File::create(&log).expect("its folder is writable");
        let errors = output.try_clone().expect("a file can be shared");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/s3.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg("run").arg(self.dir.path()).arg(self.port.to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let process = Process::spawn(&mut command, Signal::KILL, Some(self.dir.path()));
        let process = self.process.insert(process.expect("bash is there"));
        let deadline = Instant::now() + START_LIMIT;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let ended = process.ended().expect("a child can be waited for");
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the S3 server did not start: {said}");
            sleep(LOOK_PAUSE).await;
        }
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::KILL).expect("a child can be signalled");
        let ended = process.wait(PATIENCE).await.expect("a child can be waited for");
        assert!(ended.is_some(), "the S3 server does not end");
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a bucket and gives the folder that it is.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let bucket = self.dir.path().join("data").join(name);
        std::fs::create_dir_all(&bucket).expect("its folder is writable");
        bucket
    }
}
