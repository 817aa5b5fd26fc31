//! Failpoints: `step!("name")` stands between every two steps whose order the promises depend on, and a test makes
//! the process die exactly there, as by `kill -9`: no destructor runs, nothing is flushed.
//!
//! `FOREBAY_STEP=name:n` aborts at the n-th time the step is reached. Only with the feature `failpoints`, which
//! only the binary under test has; otherwise a step is nothing at all.

/// A place where a test may kill the process.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! step {
    ($name:literal) => {
        $crate::step::reached($name)
    };
}

/// A place where a test may kill the process; nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! step {
    ($name:literal) => {};
}

/// Counts, and aborts when the time has come.
#[cfg(feature = "failpoints")]
pub fn reached(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let setting = std::env::var("FOREBAY_STEP").ok()?;
        let (name, times) = setting.split_once(':').expect("FOREBAY_STEP is written `name:n`");
        Some((name.to_owned(), AtomicU64::new(times.parse().expect("FOREBAY_STEP is written `name:n`"))))
    });
    let Some((wanted, left)) = armed else { return };
    if wanted == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("step `{name}` reached: aborting");
        std::process::abort();
    }
}
