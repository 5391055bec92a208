//! `doctor`: checks what Shoal needs on this machine and suggests fixes.
//!
//! It changes nothing and starts nothing. Its exit code is that of the first failed check.

use std::net::SocketAddr;
use std::path::Path;

use engine::Engine;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use super::node_access;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeRequest};
use crate::ipc::rows::{NodeStatus, ReachabilityRow};
use crate::limits;
use crate::node::state_dir::{self, DirectoryAccess};
use crate::node::trackers::{self, TrackerLocator};
use crate::plan::ClientPlan;
use crate::printable::show_path;
use crate::quoting;
use crate::render::{Screen, figures};

/// Result of one check.
#[derive(Debug, Serialize)]
struct DoctorCheck {
    name: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    #[serde(skip)]
    exit: ExitCause,
}

impl DoctorCheck {
    fn passed(name: &'static str, message: impl Into<String>) -> DoctorCheck {
        DoctorCheck { name, ok: true, message: message.into(), fix: None, exit: ExitCause::Done }
    }

    /// A check that neither passed nor failed, with advice.
    fn warning(name: &'static str, message: impl Into<String>, fix: &str) -> DoctorCheck {
        DoctorCheck { fix: Some(fix.into()), ..DoctorCheck::passed(name, message) }
    }

    fn failed(name: &'static str, fault: ClientFault) -> DoctorCheck {
        DoctorCheck { name, ok: false, message: fault.message, fix: fault.fix, exit: fault.exit }
    }
}

/// Runs all checks.
pub(crate) fn run_doctor(plan: &ClientPlan, screen: &mut Screen) -> Result<(), ClientFault> {
    let node = running_node_status(plan);
    let is_logged_in = matches!(&node, Ok(Some(node)) if node.user.is_some() && node.listen.is_some());
    if let Err(fault) = &node
        && fault.exit == ExitCause::Usage
    {
        return Err(fault.clone());
    }
    let mut checks = vec![check_state_directory(&plan.node.state)];
    checks.extend(plan.config_fault.clone().map(|fault| DoctorCheck::failed("config", fault)));
    checks.extend(check_trackers(plan));
    checks.extend(check_node(node));
    checks.extend(is_logged_in.then(|| check_reachability(plan)));
    checks.push(check_io_uring());
    checks.extend(check_resources());
    let failed = checks.iter().any(|check| !check.ok);
    match screen.is_json() {
        // JSON output is one object: the failure contains the checks.
        true if failed => screen.attach_detail("checks", serde_json::json!(checks)),
        _ => show_checks(&checks, screen),
    }
    match checks.iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(bad) => Err(ClientFault {
            exit: bad.exit,
            message: format!("{}: {}", bad.name, bad.message),
            refusal_code: None,
            fix: bad.fix.clone(),
        }),
    }
}

/// Columns of a check's mark and name.
const LABEL_COLUMNS: usize = 15;

fn show_checks(checks: &[DoctorCheck], screen: &mut Screen) {
    if screen.is_json() {
        screen.print(&format!("{}\n", serde_json::json!({"result": "doctor", "checks": checks})));
        return;
    }
    let mut lines = Vec::new();
    for check in checks {
        let mark = match (check.ok, &check.fix) {
            (true, None) => "ok ",
            (true, Some(_)) => "-- ",
            (false, _) => "BAD",
        };
        lines.push((format!("{mark}  {}", check.name), check.message.clone()));
        lines.extend(check.fix.iter().map(|fix| (String::new(), format!("next: {fix}"))));
    }
    screen.print_labelled(&lines, LABEL_COLUMNS);
}

fn check_state_directory(path: &Path) -> DoctorCheck {
    let name = "state";
    match path.metadata() {
        Ok(found) if !found.is_dir() => {
            let message = format!("{} is not a directory", show_path(path));
            DoctorCheck::failed(
                name,
                ClientFault::new(ExitCause::LocalIo, message).fix("name another: `--state DIR`"),
            )
        }
        Ok(found) => {
            let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
            if !writable {
                let message = format!("{} is not writable", show_path(path));
                let fix = format!("`chmod u+rwx {}`, or `--state DIR`", quoting::quote_path(path));
                return DoctorCheck::failed(name, ClientFault::new(ExitCause::LocalIo, message).fix(fix));
            }
            match state_dir::check_directory(path, &found) {
                Err(fault) => DoctorCheck::failed(name, fault),
                Ok(DirectoryAccess::Open) => {
                    let fix = format!("`chmod 700 {}`", quoting::quote_path(path));
                    DoctorCheck::warning(name, format!("{} is open to other users", show_path(path)), &fix)
                }
                Ok(DirectoryAccess::Private) => DoctorCheck::passed(name, show_path(path)),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            DoctorCheck::passed(name, format!("{} will be created when needed", show_path(path)))
        }
        Err(error) => DoctorCheck::failed(
            name,
            ClientFault::io("access", path, &error).default_fix("name another: `--state DIR`"),
        ),
    }
}

fn check_trackers(plan: &ClientPlan) -> Vec<DoctorCheck> {
    let advice = "start one with `tracker`, or name the right ones with `--trackers HOST:PORT`";
    let found = TrackerLocator::new(&plan.node).find().and_then(|found| match found.resolve() {
        Ok(addresses) => Ok((addresses, found.source())),
        Err(tried) => Err(ClientFault::new(ExitCause::NoTracker, tried).fix(advice)),
    });
    let (addresses, source) = match found {
        Ok(found) => found,
        Err(fault) => return vec![DoctorCheck::failed("trackers", fault)],
    };
    let answers: Vec<(SocketAddr, Result<(), String>)> =
        addresses.into_iter().map(|address| (address, trackers::ping_tracker(address))).collect();
    let summary: Vec<String> = answers
        .iter()
        .map(|(address, answer)| match answer {
            Ok(()) => format!("{address} answers"),
            Err(why) => format!("{address} does not answer ({why})"),
        })
        .collect();
    let summary = format!("{}; {source}", summary.join(", "));
    vec![if answers.iter().any(|(_, answer)| answer.is_ok()) {
        DoctorCheck::passed("trackers", summary)
    } else {
        DoctorCheck::failed("trackers", ClientFault::new(ExitCause::NoTracker, summary).fix(advice))
    }]
}

fn running_node_status(plan: &ClientPlan) -> Result<Option<NodeStatus>, ClientFault> {
    let Some(mut connection) = node_access::connect_running_node(plan)? else { return Ok(None) };
    node_access::refuse_node_options(plan, connection.pid())?;
    match connection.request(&NodeRequest::Status, &mut |_| Ok(()))? {
        NodeAnswer::Node(node) => Ok(Some(node)),
        _ => Err(ClientFault::new(ExitCause::Protocol, "the node did not answer with its status")
            .fix("stop it with `client quit`, and start it again")),
    }
}

fn check_node(node: Result<Option<NodeStatus>, ClientFault>) -> Vec<DoctorCheck> {
    match node {
        Err(fault) => vec![DoctorCheck::failed("node", fault)],
        Ok(None) => {
            let fix = "`client serve` runs one, which shares files as long as it runs";
            vec![DoctorCheck::warning(
                "node",
                "no node runs here; each command runs its own while it works",
                fix,
            )]
        }
        Ok(Some(node)) => {
            let listens = node.listen.map_or_else(String::new, |address| format!("; listening on {address}"));
            let io = node.io.map_or_else(String::new, |io| format!("; {}", figures::backend_label(&io)));
            let login = match node.user {
                Some(user) => DoctorCheck::passed("login", user),
                None => DoctorCheck::warning("login", "no user is logged in here", "`client login USER`"),
            };
            vec![DoctorCheck::passed("node", format!("process {}{listens}{io}", node.pid)), login]
        }
    }
}

/// Has the tracker call the running node back.
fn check_reachability(plan: &ClientPlan) -> DoctorCheck {
    let name = "reached";
    let asked = node_access::connect_running_node(plan).and_then(|connection| match connection {
        Some(mut connection) => connection.request(&NodeRequest::CheckAddress, &mut |_| Ok(())).map(Some),
        None => Ok(None),
    });
    match asked {
        Ok(Some(NodeAnswer::Reachability(row))) => match row.problem_text() {
            Some(problem) => DoctorCheck::failed(
                name,
                ClientFault::new(ExitCause::Other, problem).fix(ReachabilityRow::FIX),
            ),
            None => DoctorCheck::passed(name, row.describe()),
        },
        Ok(_) => DoctorCheck::passed(name, "the node has ended"),
        Err(fault) => DoctorCheck::warning(
            name,
            format!("whether others reach this node is not known: {}", fault.message),
            "try again when the tracker answers",
        ),
    }
}

/// Probes io_uring itself, since a container may forbid what the kernel's settings allow.
fn check_io_uring() -> DoctorCheck {
    let name = "io_uring";
    let Err(error) = Engine::probe_uring() else { return DoctorCheck::passed(name, "available") };
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let fix = match setting.as_deref().map(str::trim) {
        Ok("1" | "2") => "`sysctl kernel.io_uring_disabled=0` allows it; until then epoll is used",
        _ => "allow it in the container's seccomp profile, if there is one; until then epoll is used",
    };
    DoctorCheck::warning(name, format!("not available: {error}"), fix)
}

fn check_resources() -> [DoctorCheck; 2] {
    let check =
        |name, resource, wanted: u64, shown: &dyn Fn(u64) -> String, raise: String| match getrlimit(resource)
            .current
        {
            Some(now) if now < wanted => {
                let message = format!("{}; a busy node wants {}", shown(now), shown(wanted));
                DoctorCheck::warning(name, message, &raise)
            }
            Some(now) => DoctorCheck::passed(name, shown(now)),
            None => DoctorCheck::passed(name, "unlimited"),
        };
    let files = |count| format!("{} open files", figures::format_count(count));
    let memory = |bytes| format!("{} of locked memory", figures::format_size(bytes));
    [
        check(
            "files",
            Resource::Nofile,
            limits::DESCRIPTORS_WANTED,
            &files,
            format!("`ulimit -n {}`", limits::DESCRIPTORS_WANTED),
        ),
        check(
            "memlock",
            Resource::Memlock,
            limits::LOCKED_MEMORY_WANTED_BYTES,
            &memory,
            format!("`ulimit -l {}` (in KiB)", limits::LOCKED_MEMORY_WANTED_BYTES / 1_024),
        ),
    ]
}
