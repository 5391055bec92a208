//! How much memory this program may use: the machine's, or less where a control group says so.
//!
//! The limit of a group holds for all below it, so each group on the way up is asked (cgroups(7), version 2). One that cannot be
//! read, as from within a container, says nothing.

use std::path::{Component, Path, PathBuf};

use rustix::system::sysinfo;

/// Where the groups of this program are named, one line for each hierarchy.
const OWN_GROUPS_PATH: &str = "/proc/self/cgroup";

/// Where the one hierarchy of version 2 is mounted.
const HIERARCHY_PATH: &str = "/sys/fs/cgroup";

/// What a group and all below it may use, in bytes, or `max`.
const LIMIT_NAME: &str = "memory.max";

/// In bytes.
pub(super) fn usable_memory_bytes() -> u64 {
    let info = sysinfo();
    // Both are unsigned longs of the kernel's, whatever their width here.
    #[allow(clippy::useless_conversion, reason = "their width depends on the platform")]
    let machine = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
    let groups = std::fs::read_to_string(OWN_GROUPS_PATH).unwrap_or_default();
    let read = |directory: PathBuf| std::fs::read_to_string(directory.join(LIMIT_NAME)).ok();
    least_limit(machine, &groups, read)
}

/// The least of what the machine has and of what each group allows; `read` gives a group's limit as text.
fn least_limit(machine: u64, groups: &str, read: impl Fn(PathBuf) -> Option<String>) -> u64 {
    let own = own_group(groups).into_iter().flat_map(Path::ancestors);
    own.map(|group| Path::new(HIERARCHY_PATH).join(group))
        .filter_map(read)
        .filter_map(|text| parse_limit(&text))
        .fold(machine, u64::min)
}

/// This program's group of version 2, below the mount; `None` where there is none, or where it lies outside of what is mounted.
fn own_group(groups: &str) -> Option<&Path> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

/// `None` for `max`, and for what is no limit.
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
    fn the_tightest_group_on_the_way_up_counts() {
        let groups = "1:name=systemd:/other\n0::/a/b/c\n";
        assert_eq!(least_of(groups, &[("a/b/c", "300\n"), ("a/b", "max\n"), ("a", "200\n")]), 200);
        assert_eq!(least_of(groups, &[("a/b/c", "max\n"), ("", "700\n")]), 700);
        assert_eq!(least_of(groups, &[("a/b/c", "2000\n"), ("other", "1\n"), ("a/b/c/d", "1\n")]), MACHINE);
        assert_eq!(least_of("0::/\n", &[("", "400\n")]), 400, "in a namespace of its own");
    }

    #[test]
    fn what_says_nothing_is_no_limit() {
        for groups in ["", "4:memory:/a\n", "0::/../a\n", "0::\n"] {
            assert_eq!(least_of(groups, &[("a", "1"), ("", "1"), ("../a", "1")]), MACHINE, "{groups:?}");
        }
        for text in ["", "max", "-1", "many"] {
            assert_eq!(least_of("0::/a\n", &[("a", text)]), MACHINE, "{text:?}");
        }
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(usable_memory_bytes() > 1 << 20);
    }
}
