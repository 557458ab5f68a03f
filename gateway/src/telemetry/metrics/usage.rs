//! What the process takes of the machine, by the names that Prometheus's own client libraries have for it.
//!
//! The files of `/proc` are opened at the start: after a `chroot` there are none. What cannot be known is left out.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, fstat};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Where it is read.
#[derive(Debug)]
pub(super) struct Usage {
    /// `/proc/self/status`.
    status: Option<File>,
    /// The folder `/proc/self/fd`.
    descriptors: Option<File>,
}

impl Usage {
    /// Of this process.
    pub(super) fn of_process() -> Self {
        Self {
            status: File::open("/proc/self/status").ok(),
            descriptors: File::open("/proc/self/fd").ok(),
        }
    }

    /// Writes all of it in the text format, of a process that started then.
    pub(super) fn render(&self, started: SystemTime, text: &mut String) {
        let status = self.status();
        let kilobytes = |field| Some(number(&status, field)? * 1024.0);
        let families = [
            (
                "process_cpu_seconds_total",
                "counter",
                "CPU time of the process, in user and kernel mode.",
                Some(cpu_seconds()),
            ),
            (
                "process_open_fds",
                "gauge",
                "Descriptors that are open.",
                self.open_descriptors(),
            ),
            (
                "process_max_fds",
                "gauge",
                "Descriptors that may be open.",
                getrlimit(Resource::Nofile).current.map(|most| most as f64),
            ),
            (
                "process_virtual_memory_bytes",
                "gauge",
                "Size of the address space.",
                kilobytes("VmSize:"),
            ),
            (
                "process_resident_memory_bytes",
                "gauge",
                "Memory that is in use.",
                kilobytes("VmRSS:"),
            ),
            (
                "process_start_time_seconds",
                "gauge",
                "When the process started, in Unix time.",
                Some(started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()),
            ),
            (
                "process_threads",
                "gauge",
                "Threads of the process.",
                number(&status, "Threads:"),
            ),
        ];
        for (name, kind, help, value) in families {
            if let Some(value) = value {
                // Writing into memory does not fail.
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
            }
        }
    }

    /// What the kernel says of the process; empty where that is not to be had.
    fn status(&self) -> String {
        let mut text = vec![0; STATUS];
        let read = self.status.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        text.truncate(read.unwrap_or_default());
        String::from_utf8_lossy(&text).into_owned()
    }

    fn open_descriptors(&self) -> Option<f64> {
        let folder = self.descriptors.as_ref()?;
        // The size of the folder is how many there are, since Linux 6.2.
        let size = fstat(folder).ok()?.st_size;
        if size > 0 {
            return Some(size as f64);
        }
        // Opened anew, and so with one more than there are. Each has a name.
        let names = Dir::read_from(folder).ok()?.filter_map(Result::ok);
        let all = names
            .filter(|entry| !entry.file_name().to_bytes().starts_with(b"."))
            .count();
        Some(all.saturating_sub(1) as f64)
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The number behind a field's name, with its colon.
fn number(status: &str, field: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|number| number as f64)
}

/// Bytes that are read of it: some fifteen hundred there are, and what is looked for is at its beginning.
const STATUS: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_of_their_lines() {
        let status = "Name:\tVmRSS: 1 kB\nVmSize:\t  123456 kB\nVmRSS:\t    4711 kB\nThreads:\t9\n";
        assert_eq!(number(status, "VmSize:"), Some(123_456.0));
        assert_eq!(number(status, "VmRSS:"), Some(4711.0));
        assert_eq!(number(status, "Threads:"), Some(9.0));
        assert_eq!(number(status, "VmSwap:"), None);
        assert_eq!(number("", "VmRSS:"), None);
    }

    #[test]
    fn what_cannot_be_known_is_left_out() {
        let nowhere = Usage {
            status: None,
            descriptors: None,
        };
        let mut text = String::new();
        nowhere.render(UNIX_EPOCH, &mut text);
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(text.contains("\nprocess_start_time_seconds 0\n"), "{text}");
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_threads"] {
            assert!(!text.contains(name), "{name}: {text}");
        }
    }
}
