//! nginx with curl, which is what most people use; with curl and `openssl sha1`, which proves the whole; with aria2, by four
//! connections.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use rustix::process::geteuid;

use super::aria2::allocation_option;
use super::ports;
use super::rival::{Rival, isolated_command, version_number};
use crate::contender::{Contender, FetchSteps, ProgramContender, TRANSFER_TIME_PREFIX, TransferTerms};
use crate::topology::parent_death::in_pid_namespace;
use crate::topology::spawned::{SpawnedProgram, empty_folder, first_line};

/// nginx to curl.
pub(super) struct NginxCurl;

/// nginx to curl, then `openssl sha1`.
pub(super) struct NginxCurlOpenssl;

/// nginx to aria2.
pub(super) struct NginxAria2;

impl Rival for NginxCurl {
    fn name(&self) -> &'static str {
        "nginx, curl"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("{}, {}", nginx_version()?, version_number(&first_line("curl", &["--version"])?)))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let own = terms.clone();
        let curl =
            nginx_contender(kind, terms, move |urls, copy| vec![timed_curl_command(&own, &urls[0], copy)])?;
        Ok(Box::new(curl.into_one_source()))
    }
}

impl Rival for NginxCurlOpenssl {
    fn name(&self) -> &'static str {
        "nginx, curl, openssl sha1"
    }

    fn version(&self) -> anyhow::Result<String> {
        let openssl = version_number(&first_line("openssl", &["version"])?);
        Ok(format!("{}, {openssl}", NginxCurl.version()?))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let own = terms.clone();
        let both = nginx_contender(kind, terms, move |urls, copy| {
            let mut hash = Command::new("openssl");
            hash.arg("sha1").arg(copy);
            // What curl alone took would leave out the proof.
            vec![curl_command(&own, &urls[0], copy), hash]
        })?;
        Ok(Box::new(both.into_one_source()))
    }
}

impl Rival for NginxAria2 {
    fn name(&self) -> &'static str {
        "nginx, aria2"
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("{}, {}", nginx_version()?, version_number(&first_line("aria2c", &["--version"])?)))
    }

    fn start_contender(&self, kind: &str, terms: &TransferTerms) -> anyhow::Result<Box<dyn Contender>> {
        let own = terms.clone();
        let aria2 = nginx_contender(kind, terms, move |urls, copy| {
            let mut command = isolated_command("aria2c", &own);
            command.args(["--no-conf", "--quiet", allocation_option(&own)]);
            command.args(["--split=4", "--max-connection-per-server=4", "--min-split-size=1M"]);
            command.arg("--dir").args(copy.parent()).arg("--out").args(copy.file_name()).args(urls);
            vec![command]
        })?;
        Ok(Box::new(aria2))
    }
}

fn timed_curl_command(terms: &TransferTerms, url: &str, copy: &Path) -> Command {
    let mut command = curl_command(terms, url, copy);
    command.arg("--write-out").arg(format!("{TRANSFER_TIME_PREFIX}%{{time_total}}\n"));
    command
}

fn curl_command(terms: &TransferTerms, url: &str, copy: &Path) -> Command {
    let mut command = isolated_command("curl", terms);
    command.args(["--silent", "--show-error", "--fail", "--output"]).arg(copy).arg(url);
    command
}

fn nginx_version() -> anyhow::Result<String> {
    Ok(version_number(&first_line("nginx", &["-v"])?))
}

/// One nginx a source; commands get all their addresses.
fn nginx_contender(
    kind: &str,
    terms: &TransferTerms,
    fetch: impl Fn(&[String], &Path) -> Vec<Command> + 'static,
) -> anyhow::Result<ProgramContender> {
    let (mut servers, mut urls) = (Vec::new(), Vec::new());
    let name =
        terms.content.path.file_name().and_then(|name| name.to_str()).context("the file has a name")?;
    for port in ports::free_ports(terms.sources)? {
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
    let place = empty_folder(terms.place.join(format!("nginx-{port}")))?;
    let root = terms.content.path.parent().context("the file lies in a folder")?.display();
    // Its workers would otherwise run as somebody who may not read the file.
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
    let file = place.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&place).arg("-c").arg(&file).args(["-e", "stderr"]);
    // Its workers would outlive it.
    ports::start_server("nginx", &in_pid_namespace(&command), terms, port)
}
