//! Memory that this program may use: the machine's, or less where a control group limits it.
//!
//! The limit of a group holds for all groups below it, so each group on the way to the root is read
//! (cgroups(7), version 2). A group that cannot be read, as inside a container, is taken as unlimited.

use std::path::{Component, Path, PathBuf};

use rustix::system::sysinfo;

/// Lists this program's groups, one line for each hierarchy.
const OWN_GROUPS_PATH: &str = "/proc/self/cgroup";

/// Mount point of the version 2 hierarchy.
const HIERARCHY_PATH: &str = "/sys/fs/cgroup";

/// File in a group's directory: its limit in bytes, or `max`.
const LIMIT_NAME: &str = "memory.max";

pub(super) fn usable_memory_bytes() -> u64 {
    let info = sysinfo();
    // Both are `unsigned long` in the kernel, so their width depends on the platform.
    #[allow(clippy::useless_conversion, reason = "their width depends on the platform")]
    let machine = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
    let groups = std::fs::read_to_string(OWN_GROUPS_PATH).unwrap_or_default();
    let read = |directory: PathBuf| std::fs::read_to_string(directory.join(LIMIT_NAME)).ok();
    least_limit(machine, &groups, read)
}

/// The smallest of the machine's memory and the groups' limits, in bytes. `read` returns the text of a
/// group's limit.
fn least_limit(machine: u64, groups: &str, read: impl Fn(PathBuf) -> Option<String>) -> u64 {
    let own = own_group(groups).into_iter().flat_map(Path::ancestors);
    own.map(|group| Path::new(HIERARCHY_PATH).join(group))
        .filter_map(read)
        .filter_map(|text| parse_limit(&text))
        .fold(machine, u64::min)
}

/// This program's version 2 group, relative to the mount; `None` when it has none or lies outside of the
/// mount.
fn own_group(groups: &str) -> Option<&Path> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

/// `None` for `max` and for anything that is not a number.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 1_000;

    fn least_of(groups: &str, limits: &[(&str, &str)]) -> u64 {
        least_limit(MACHINE, groups, |directory| {
            let found = limits.iter().find(|(group, _)| directory == Path::new(HIERARCHY_PATH).join(group));
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_tightest_group_limits_the_memory() {
        let groups = "1:name=systemd:/other\n0::/a/b/c\n";
        assert_eq!(least_of(groups, &[("a/b/c", "300\n"), ("a/b", "max\n"), ("a", "200\n")]), 200);
        assert_eq!(least_of(groups, &[("a/b/c", "max\n"), ("", "700\n")]), 700);
        assert_eq!(least_of(groups, &[("a/b/c", "2000\n"), ("other", "1\n"), ("a/b/c/d", "1\n")]), MACHINE);
        assert_eq!(least_of("0::/\n", &[("", "400\n")]), 400, "in a namespace of its own");
    }

    #[test]
    fn unreadable_limits_are_ignored() {
        for groups in ["", "4:memory:/a\n", "0::/../a\n", "0::\n"] {
            assert_eq!(least_of(groups, &[("a", "1"), ("", "1"), ("../a", "1")]), MACHINE, "{groups:?}");
        }
        for text in ["", "max", "-1", "many"] {
            assert_eq!(least_of("0::/a\n", &[("a", text)]), MACHINE, "{text:?}");
        }
    }

    #[test]
    fn usable_memory_is_positive() {
        assert!(usable_memory_bytes() > 1 << 20);
    }
}
