//! `doctor`: checks what Shoal needs here, and says what to do about what is missing.
//!
//! Invariant: it changes nothing, starts nothing, and its exit code is that of the first check that failed.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::door;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Ask};
use crate::front::rows::NodeRow;
use crate::limits;
use crate::node::state::{self, Suits};
use crate::node::trackers;
use crate::plan::Plan;
use crate::quoted;
use crate::render::Screen;

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
    let reachable: Vec<(SocketAddr, bool)> = addresses
        .into_iter()
        .map(|address| {
            let timeout = Duration::from_millis(limits::TRACKER_CONNECT_MS);
            (address, TcpStream::connect_timeout(&address, timeout).is_ok())
        })
        .collect();
    let any = reachable.iter().any(|(_, up)| *up);
    let told: Vec<String> = reachable
        .iter()
        .map(|(address, up)| format!("{address} {}", if *up { "answers" } else { "does not answer" }))
        .collect();
    let told = told.join(", ");
    vec![if any {
        Check::good("trackers", told)
    } else {
        Check::bad("trackers", trackers::unreachable(&told))
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
            vec![Check::remark("node", "none runs here; commands do without", "`client serve` shares always")]
        }
        Ok(Some(node)) => {
            let listens =
                node.listen.map_or_else(String::new, |address| format!(", peers connect to {address}"));
            let io = node.io.map_or_else(String::new, |io| format!(", moved by {io}"));
            let login = match node.user {
                Some(user) => Check::good("login", user),
                None => Check::remark("login", "nobody is logged in here", "`client login USER`"),
            };
            vec![Check::good("node", format!("process {}{listens}{io}", node.pid)), login]
        }
    }
}

/// What the kernel says about io_uring; a container may still forbid it, which a node says when it starts.
fn io_uring() -> Check {
    let name = "io_uring";
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    match setting.as_deref().map(str::trim) {
        Ok("0") | Err(_) => Check::good(name, "allowed by the kernel"),
        Ok(_) => {
            let fix = "`sysctl kernel.io_uring_disabled=0` allows it; epoll is used until then";
            Check::remark(name, "switched off by the kernel's settings", fix)
        }
    }
}

fn resources() -> [Check; 2] {
    let limit = |name, resource, wanted: u64, flag: &str| {
        let now = getrlimit(resource).current;
        match now {
            Some(now) if now < wanted => {
                let fix = format!("`ulimit {flag}` with at least {wanted}");
                Check::remark(name, format!("{now} (as few as this may slow a busy node down)"), &fix)
            }
            Some(now) => Check::good(name, now.to_string()),
            None => Check::good(name, "unlimited"),
        }
    };
    [
        limit("files", Resource::Nofile, DESCRIPTORS_WANTED, "-n"),
        limit("memlock", Resource::Memlock, LOCKED_MEMORY_WANTED, "-l (in KiB)"),
    ]
}
