//! What Linux tells about processes and about the machine.

use std::fs;

/// The kernel counts in these for user space, whatever its own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU-seconds in its own code.
    pub user: f64,
    /// CPU-seconds in the kernel.
    pub system: f64,
    /// Whether it has ended and was not waited for.
    pub ended: bool,
}

impl Usage {
    /// Nothing once the process is gone.
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |index: usize| Some(fields.get(index)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Usage { user: seconds(11)?, system: seconds(12)?, ended: *fields.first()? == "Z" })
    }

    /// Both together.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// The most memory that a process ever had, in MiB; nothing once it has ended.
pub fn peak_memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
    Some(kib.parse::<f64>().ok()? / 1024.0)
}

/// How many bytes a process has written to files; sockets do not count.
pub fn written(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar:")?.trim().parse().ok())
}

/// How many processes wanted a processor in the last minute: what else runs here spoils the figures.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default(); // without it the line only says less
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// One line on what the figures were measured on.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default(); // without it the line only says less
    let field = |text: String, name: &str| {
        let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    format!(
        "{cores} cores ({}), memory {}, Linux {}",
        field(read("/proc/cpuinfo"), "model name"),
        field(read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}
