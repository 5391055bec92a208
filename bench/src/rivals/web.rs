//! Rivals with nginx as the server. The client is curl, the most common pair; curl followed by `openssl sha1`, which
//! verifies the whole file; or aria2 with four connections.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::geteuid;

use super::aria2::allocation_option;
use super::ports;
use super::rival::{Rival, isolated_command, program_version};
use crate::contender::{FetchSteps, ProgramContender, TRANSFER_TIME_PREFIX, TransferTerms};
use crate::topology::parent_death::in_pid_namespace;
use crate::topology::spawned::{SpawnedProgram, create_empty_folder};

/// nginx to curl.
pub(super) const CURL: Rival =
    Rival { name: "nginx, curl", version: curl_version, keeps_source_mapped: None, start: start_curl };

/// nginx to curl, then `openssl sha1`.
pub(super) const CURL_THEN_OPENSSL: Rival = Rival {
    name: "nginx, curl, openssl sha1",
    version: || {
        let openssl = program_version("openssl", &["version"])?;
        Ok(format!("{}, {openssl}", curl_version()?))
    },
    keeps_source_mapped: None,
    start: start_curl_then_openssl,
};

/// nginx to aria2.
pub(super) const ARIA2: Rival = Rival {
    name: "nginx, aria2",
    version: || Ok(format!("{}, {}", nginx_version()?, program_version("aria2c", &["--version"])?)),
    keeps_source_mapped: None,
    start: start_aria2,
};

fn nginx_version() -> anyhow::Result<String> {
    program_version("nginx", &["-v"])
}

fn curl_version() -> anyhow::Result<String> {
    Ok(format!("{}, {}", nginx_version()?, program_version("curl", &["--version"])?))
}

fn start_curl(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let own = terms.clone();
    let curl = nginx_contender(kind, terms, move |urls, copy| {
        let mut command = curl_command(&own, &urls[0], copy);
        command.arg("--write-out").arg(format!("{TRANSFER_TIME_PREFIX}%{{time_total}}\n"));
        vec![command]
    })?;
    Ok(curl.into_one_source())
}

fn start_curl_then_openssl(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let own = terms.clone();
    let both = nginx_contender(kind, terms, move |urls, copy| {
        let mut hash = Command::new("openssl");
        hash.arg("sha1").arg(copy);
        // curl's own time is not reported: it would leave out the verification.
        vec![curl_command(&own, &urls[0], copy), hash]
    })?;
    Ok(both.into_one_source())
}

fn start_aria2(kind: &str, terms: &TransferTerms) -> anyhow::Result<ProgramContender> {
    let own = terms.clone();
    nginx_contender(kind, terms, move |urls, copy| {
        let mut command = isolated_command("aria2c", &own);
        command.args(["--no-conf", "--quiet", allocation_option(&own)]);
        command.args(["--split=4", "--max-connection-per-server=4", "--min-split-size=1M"]);
        command.arg("--dir").args(copy.parent()).arg("--out").args(copy.file_name()).args(urls);
        vec![command]
    })
}

fn curl_command(terms: &TransferTerms, url: &str, copy: &Path) -> Command {
    let mut command = isolated_command("curl", terms);
    command.args(["--silent", "--show-error", "--fail", "--output"]).arg(copy).arg(url);
    command
}

/// One nginx for each source; `fetch` gets the URLs of all of them and the path of the copy.
fn nginx_contender(
    kind: &str,
    terms: &TransferTerms,
    fetch: impl Fn(&[String], &Path) -> Vec<Command> + 'static,
) -> anyhow::Result<ProgramContender> {
    let (mut servers, mut urls) = (Vec::new(), Vec::new());
    let name = terms.file.path.file_name().and_then(|name| name.to_str()).context("name is not UTF-8")?;
    for port in ports::free_ports(terms.seeders)? {
        servers.push(start_nginx(terms, port)?);
        urls.push(format!("http://127.0.0.1:{port}/{name}"));
    }
    let steps = move |_: usize, into: &Path| {
        let copy = into.join("fetched");
        FetchSteps { commands: fetch(&urls, &copy), copy: Some(copy) }
    };
    Ok(ProgramContender::new(kind, terms, servers, steps))
}

/// An nginx with a configuration and folders of its own.
fn start_nginx(terms: &TransferTerms, port: u16) -> anyhow::Result<SpawnedProgram> {
    let place = create_empty_folder(terms.folder.join(format!("nginx-{port}")))?;
    let root = terms.file.path.parent().context("the file's path has no folder")?.display();
    // As root, nginx's workers would run as a user who may not read the file.
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("    {of}_temp_path {};\n", place.join(of).display()))
        .concat();
    let text = format!(
        "daemon off;\n{user}\nworker_processes auto;\npid {}/pid;\nerror_log stderr;\n\
         events {{}}\nhttp {{\n    access_log off;\n    sendfile on;\n    tcp_nopush on;\n{temporary}\
         \x20   server {{\n        listen 127.0.0.1:{port};\n        root {root};\n    }}\n}}\n",
        place.display()
    );
    let config = place.join("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&place).arg("-c").arg(&config).args(["-e", "stderr"]);
    // A PID namespace, because nginx's workers would otherwise outlive a killed master.
    ports::start_server("nginx", &in_pid_namespace(&command), terms, port)
}
