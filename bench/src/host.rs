//! A description of this machine and its limits, without which results mean little.
//!
//! Invariant: a property that cannot be read is `None`, never a guess.

use std::fs;
use std::thread;

use engine::hash::HashKind;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

/// Properties of the machine, as the `host` record holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostDescription {
    pub(crate) kernel: Option<String>,
    pub(crate) cpu: Option<String>,
    /// CPUs that this process may use.
    pub(crate) cpus: Option<usize>,
    /// The CPU features that the engine uses.
    pub(crate) cpu_features: Vec<String>,
    /// Hashing implementations, fastest first.
    pub(crate) hash_kinds: Vec<String>,
    pub(crate) memory_bytes: Option<u64>,
    /// Memory available without swapping.
    pub(crate) memory_available_bytes: Option<u64>,
    /// TCP congestion control of new sockets.
    pub(crate) congestion_control: Option<String>,
    /// Congestion controls that any user may choose.
    pub(crate) congestion_control_allowed: Option<String>,
    /// Whether this process can create an io_uring.
    pub(crate) io_uring: bool,
    pub(crate) io_uring_refusal: Option<String>,
    /// Memory that this process may lock, which bounds zero-copy sends; `None` without a limit.
    pub(crate) locked_memory_limit_bytes: Option<u64>,
    /// Files that this process may open; `None` without a limit.
    pub(crate) open_files_limit: Option<u64>,
    /// Type, folder and free space of the requested folder's filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filesystem: Option<String>,
}

impl HostDescription {
    /// Memory available now without swapping, in bytes.
    pub(crate) fn memory_available() -> Option<u64> {
        let memory = fs::read_to_string("/proc/meminfo").ok()?;
        field_value(&memory, "MemAvailable").and_then(parse_kibibytes)
    }

    pub(crate) fn describe() -> HostDescription {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let ring_refusal = ring_refusal();
        HostDescription {
            kernel: read_first_line("/proc/sys/kernel/osrelease"),
            cpu: field_value(&cpu, "model name").map(str::to_owned),
            cpus: thread::available_parallelism().ok().map(usize::from),
            cpu_features: cpu_features(),
            hash_kinds: HashKind::supported().map(|kind| kind.name().to_owned()).collect(),
            memory_bytes: field_value(&memory, "MemTotal").and_then(parse_kibibytes),
            memory_available_bytes: field_value(&memory, "MemAvailable").and_then(parse_kibibytes),
            congestion_control: read_first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
            congestion_control_allowed: read_first_line("/proc/sys/net/ipv4/tcp_allowed_congestion_control"),
            io_uring: ring_refusal.is_none(),
            io_uring_refusal: ring_refusal,
            locked_memory_limit_bytes: getrlimit(Resource::Memlock).current,
            open_files_limit: getrlimit(Resource::Nofile).current,
            filesystem: None,
        }
    }
}

fn read_first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end().to_owned())
}

/// The value of the first line `name : value`.
fn field_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// Parses `1234 kB` into bytes.
fn parse_kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The CPU features, of those that the engine's hashing uses, that this CPU has.
fn cpu_features() -> Vec<String> {
    let features = [
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("sha", is_x86_feature_detected!("sha")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
        ("sse4.1", is_x86_feature_detected!("sse4.1")),
    ];
    features.into_iter().filter(|(_, found)| *found).map(|(name, _)| name.to_owned()).collect()
}

/// Why this process cannot create an io_uring, if it cannot.
fn ring_refusal() -> Option<String> {
    tokio_uring::Runtime::new(&tokio_uring::builder()).err().map(|refusal| refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotalish: 1 kB\nMemTotal:       2048 kB\nmodel name\t: A B: C\n";
        assert_eq!(field_value(text, "MemTotal").and_then(parse_kibibytes), Some(2_048 * 1_024));
        assert_eq!(field_value(text, "model name"), Some("A B: C"));
        assert_eq!(field_value(text, "MemFree"), None);
        assert_eq!(parse_kibibytes("12 MB"), None);
    }
}
