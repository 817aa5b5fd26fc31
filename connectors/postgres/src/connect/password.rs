//! Reading the password, anew for each connection, because tokens expire.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::ConnectError;
use crate::url::Password;

/// A password, or a token, is no longer than this.
const MAX_PASSWORD: u64 = 64 * 1024;

impl Password {
    /// The password as it is now; a command may take as long as `limit`.
    pub(super) async fn read(&self, limit: Duration) -> Result<Option<Vec<u8>>, ConnectError> {
        match self {
            Password::Absent => Ok(None),
            Password::Text(text) => Ok(Some(text.clone().into_bytes())),
            Password::File(path) => {
                let unreadable = |source| ConnectError::PasswordFile { path: path.clone(), source };
                let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
                all(file.take(MAX_PASSWORD)).await.map(one_line).map(Some).map_err(unreadable)
            }
            Password::Command(command) => {
                let finished = timeout(limit, run(command)).await;
                let printed =
                    finished.unwrap_or_else(|_| Err("it took longer than `connect_timeout`".to_owned()));
                printed.map(one_line).map(Some).map_err(|why| ConnectError::PasswordCommand { why })
            }
        }
    }
}

/// Runs the password's command. It is killed if we stop waiting for it.
async fn run(command: &str) -> Result<Vec<u8>, String> {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`sh` cannot be run: {error}"))?;
    let stdout = child.stdout.take().expect("its standard output is a pipe").take(MAX_PASSWORD);
    let stderr = child.stderr.take().expect("its standard error is a pipe").take(MAX_PASSWORD);
    let (printed, said, ended) = tokio::join!(all(stdout), all(stderr), child.wait());
    let printed = printed.map_err(|error| format!("its output cannot be read: {error}"))?;
    match ended {
        Ok(status) if status.success() => Ok(printed),
        Ok(status) => {
            let said = String::from_utf8_lossy(&said.unwrap_or_default()).trim().to_owned();
            Err(format!("{status}{}{said}", if said.is_empty() { "" } else { ": " }))
        }
        Err(error) => Err(format!("its end cannot be waited for: {error}")),
    }
}

async fn all(mut from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Without the line's end that editors and `echo` add.
fn one_line(mut password: Vec<u8>) -> Vec<u8> {
    while password.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        password.pop();
    }
    password
}
