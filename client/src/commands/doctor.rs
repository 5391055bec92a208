//! `doctor`: checks what Shoal needs here, and says what to do about what is missing.
//!
//! Invariant: it changes nothing, starts nothing, and its exit code is that of the first check that failed.

use std::net::SocketAddr;
use std::path::Path;

use engine::Engine;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::door;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Ask};
use crate::front::rows::NodeRow;
use crate::node::state::{self, Suits};
use crate::node::trackers;
use crate::plan::Plan;
use crate::quoted;
use crate::render::{Screen, figures};

/// Descriptors that a node wants: its connections to peers, both ways, and room for files and front ends.
const DESCRIPTORS_WANTED: u64 = 2_048;

/// Memory that may be locked, in bytes, below which few sends can do without the kernel's copy.
const LOCKED_MEMORY_WANTED: u64 = 8 << 20;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Check {
    fn good(name: &'static str, message: impl Into<String>) -> Check {
        Check { name, ok: true, message: message.into(), fix: None, exit: Exit::Done }
    }

    /// Worth knowing, but nothing is wrong.
    fn remark(name: &'static str, message: impl Into<String>, fix: &str) -> Check {
        Check { fix: Some(fix.into()), ..Check::good(name, message) }
    }

    fn bad(name: &'static str, fault: Fault) -> Check {
        Check { name, ok: false, message: fault.message, fix: fault.fix, exit: fault.exit }
    }
}

/// Looks at everything.
pub(crate) fn run(plan: &Plan, screen: &mut Screen) -> Result<(), Fault> {
    let node = running(plan);
    if let Err(fault) = &node
        && fault.exit == Exit::Usage
    {
        return Err(fault.clone());
    }
    let mut checks = vec![state_directory(&plan.node.state)];
    checks.extend(plan.config_fault.clone().map(|fault| Check::bad("config", fault)));
    checks.extend(tracker_checks(plan));
    checks.extend(node_checks(node));
    checks.push(io_uring());
    checks.extend(resources());
    let failed = checks.iter().any(|check| !check.ok);
    match screen.is_json() {
        // One object a command: what failed has the checks in it.
        true if failed => screen.explain("checks", serde_json::json!(checks)),
        _ => show(&checks, screen),
    }
    match checks.iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(bad) => Err(Fault {
            exit: bad.exit,
            message: format!("{}: {}", bad.name, bad.message),
            refused: None,
            fix: bad.fix.clone(),
        }),
    }
}

fn show(checks: &[Check], screen: &mut Screen) {
    if screen.is_json() {
        screen.print(&format!("{}\n", serde_json::json!({"result": "doctor", "checks": checks})));
        return;
    }
    for check in checks {
        let mark = if check.ok { "ok " } else { "BAD" };
        screen.print(&format!("{mark}  {:<10} {}\n", check.name, check.message));
        if let Some(fix) = &check.fix {
            screen.print(&format!("                next: {fix}\n"));
        }
    }
}

fn state_directory(path: &Path) -> Check {
    let name = "state";
    match path.metadata() {
        Ok(found) if !found.is_dir() => {
            let message = format!("{} is no directory", path.display());
            Check::bad(name, Fault::new(Exit::LocalIo, message).fix("name another: `--state DIR`"))
        }
        Ok(found) => {
            let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
            if !writable {
                let message = format!("{} cannot be written", path.display());
                let fix = format!("`chmod u+rwx {}`, or `--state DIR`", quoted::path(path));
                return Check::bad(name, Fault::new(Exit::LocalIo, message).fix(fix));
            }
            match state::suits(path, &found) {
                Err(fault) => Check::bad(name, fault),
                Ok(Suits::Open) => {
                    let fix = format!("`chmod 700 {}`", quoted::path(path));
                    Check::remark(name, format!("{} is open to other users", path.display()), &fix)
                }
                Ok(Suits::Closed) => Check::good(name, path.display().to_string()),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::good(name, format!("{} will be made when it is needed", path.display()))
        }
        Err(error) => Check::bad(name, Fault::io("look at", path, &error).fix("name another: `--state DIR`")),
    }
}

fn tracker_checks(plan: &Plan) -> Vec<Check> {
    let addresses = match trackers::addresses(plan.node.trackers.as_deref()) {
        Ok(addresses) => addresses,
        Err(fault) => return vec![Check::bad("trackers", fault)],
    };
    let asked: Vec<(SocketAddr, Result<(), String>)> =
        addresses.into_iter().map(|address| (address, trackers::ping(address))).collect();
    let told: Vec<String> = asked
        .iter()
        .map(|(address, answer)| match answer {
            Ok(()) => format!("{address} answers"),
            Err(why) => format!("{address} does not answer ({why})"),
        })
        .collect();
    let told = told.join(", ");
    vec![if asked.iter().any(|(_, answer)| answer.is_ok()) {
        Check::good("trackers", told)
    } else {
        let fix = "start one with `tracker`, or name the right addresses with `--trackers FILE`";
        Check::bad("trackers", Fault::new(Exit::NoTracker, told).fix(fix))
    }]
}

fn running(plan: &Plan) -> Result<Option<NodeRow>, Fault> {
    let Some(mut link) = door::running_node(plan)? else { return Ok(None) };
    door::refuse_node_options(plan, link.pid())?;
    match link.ask(&Ask::Status, &mut |_| Ok(()))? {
        Answer::Node(node) => Ok(Some(node)),
        _ => Err(Fault::new(Exit::Protocol, "the node answered something else than how it is")
            .fix("end it with `client quit`, and start it again")),
    }
}

fn node_checks(node: Result<Option<NodeRow>, Fault>) -> Vec<Check> {
    match node {
        Err(fault) => vec![Check::bad("node", fault)],
        Ok(None) => {
            let fix = "`client serve` runs one, which shares as long as it runs";
            vec![Check::remark(
                "node",
                "none runs here; each command is the node for as long as it works",
                fix,
            )]
        }
        Ok(Some(node)) => {
            let listens = node.listen.map_or_else(String::new, |address| format!("; listening on {address}"));
            let io = node.io.map_or_else(String::new, |io| format!("; {}", figures::back_end(&io)));
            let login = match node.user {
                Some(user) => Check::good("login", user),
                None => Check::remark("login", "nobody is logged in here", "`client login USER`"),
            };
            vec![Check::good("node", format!("process {}{listens}{io}", node.pid)), login]
        }
    }
}

/// Tries io_uring: a container may forbid what the kernel's settings allow.
fn io_uring() -> Check {
    let name = "io_uring";
    let Err(error) = Engine::probe_uring() else { return Check::good(name, "available") };
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let fix = match setting.as_deref().map(str::trim) {
        Ok("1" | "2") => "`sysctl kernel.io_uring_disabled=0` allows it; epoll does the same work until then",
        _ => {
            "allow it in the container's seccomp profile, if there is one; epoll does the same work until then"
        }
    };
    Check::remark(name, format!("not available: {error}"), fix)
}

fn resources() -> [Check; 2] {
    let check =
        |name, resource, wanted: u64, shown: &dyn Fn(u64) -> String, raise: String| match getrlimit(resource)
            .current
        {
            Some(now) if now < wanted => {
                let message = format!("{}; a busy node wants {}", shown(now), shown(wanted));
                Check::remark(name, message, &raise)
            }
            Some(now) => Check::good(name, shown(now)),
            None => Check::good(name, "unlimited"),
        };
    let files = |count| format!("{} open files", figures::count(count));
    let memory = |bytes| format!("{} of locked memory", figures::size(bytes));
    [
        check(
            "files",
            Resource::Nofile,
            DESCRIPTORS_WANTED,
            &files,
            format!("`ulimit -n {DESCRIPTORS_WANTED}`"),
        ),
        check(
            "memlock",
            Resource::Memlock,
            LOCKED_MEMORY_WANTED,
            &memory,
            format!("`ulimit -l {}` (in KiB)", LOCKED_MEMORY_WANTED / 1_024),
        ),
    ]
}
