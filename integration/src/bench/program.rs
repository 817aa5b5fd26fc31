//! Where the programs are that are measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A client program of PostgreSQL; the error says how to get it. The program itself, not the wrapper that Debian puts on
/// PATH: that is a Perl script which starts it.
pub fn client(name: &str) -> Result<PathBuf, String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let packaged = versions.map(|version| version.path().join("bin").join(name));
    let packaged = packaged.filter(|path| path.is_file()).max();
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    };
    packaged.or_else(on_path).ok_or_else(|| {
        format!(
            "cannot measure the ceiling without `{name}`: apt-get install postgresql-client, or put it on PATH"
        )
    })
}

/// The daemon that users run: the release profile, without the failpoints of the tests' one.
pub fn forebay() -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--package", "forebay", "--bin", "forebay"]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("the daemon does not build".to_owned());
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let mut executables = messages.filter_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?; // the last line is empty
        let ours = message["target"]["name"] == "forebay";
        ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    executables.next_back().ok_or_else(|| "cargo names no executable of the daemon".to_owned())
}
