//! Answers as text: tables on a terminal, one name per line to a pipe, sentences for the rest.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{figures, transfer};
use crate::ipc::protocol::NodeAnswer;
use crate::ipc::rows::{FileListRow, GroupListRow, NodeStatus, WaitingSharesRow};
use crate::printable::make_printable;
use crate::quoting;

/// The text for stdout, with a final line end; empty for an empty list.
pub(crate) fn answer_text(answer: &NodeAnswer, terminal: bool) -> String {
    match answer {
        NodeAnswer::Said { message } | NodeAnswer::Joined { message, .. } => join_lines([message.clone()]),
        NodeAnswer::Groups { groups } if terminal => {
            format_table(&["group", "owner", "policy", "members", ""], groups, group_cells)
        }
        NodeAnswer::Groups { groups } => join_lines(groups.iter().map(|row| row.group.clone())),
        NodeAnswer::Requests { users, .. } => join_lines(users.iter().cloned()),
        NodeAnswer::Files { files, .. } if terminal => {
            format_table(&["file", "size", "seeders", "leechers", "SHA-1"], files, file_cells)
        }
        NodeAnswer::Files { files, .. } => join_lines(files.iter().map(|row| make_printable(&row.file))),
        NodeAnswer::Peers { peers, .. } if terminal => format_table(&["peer", "has"], peers, |row| {
            vec![row.address.to_string(), if row.complete { "all" } else { "a part" }.into()]
        }),
        NodeAnswer::Peers { peers, .. } => join_lines(peers.iter().map(|row| row.address.to_string())),
        NodeAnswer::Whoami { user, address: None } => join_lines([user.clone()]),
        NodeAnswer::Whoami { user, address: Some(address) } => {
            join_lines([format!("{user}, shares at {address}")])
        }
        NodeAnswer::Uploaded { group, file, size_bytes, pieces, sha1, .. } => join_lines([format!(
            "[{group}] {file} is shared: {}, {pieces} {}, SHA-1 {sha1}",
            figures::format_size(*size_bytes),
            if *pieces == 1 { "piece" } else { "pieces" },
        )]),
        NodeAnswer::Started(now) => join_lines([format!(
            "[{}] {} is being downloaded to {}",
            now.group,
            now.file,
            now.path.display()
        )]),
        NodeAnswer::Downloaded(now) => join_lines([transfer::summarize_transfer(now)]),
        NodeAnswer::AlreadyThere { path, size_bytes, .. } => join_lines([format!(
            "{} is already there and verified ({})",
            path.display(),
            figures::format_size(*size_bytes)
        )]),
        NodeAnswer::Downloads { downloads } => join_lines(downloads.iter().map(transfer::listing_line)),
        NodeAnswer::Node(node) => node_text(node),
    }
}

/// A note that explains an empty or incomplete list.
pub(crate) fn answer_remark(answer: &NodeAnswer) -> Option<&'static str> {
    match answer {
        NodeAnswer::Peers { only_here: true, .. } => Some("no other node has it"),
        NodeAnswer::Peers { peers, .. } if peers.is_empty() => Some("no other node that is online has it"),
        NodeAnswer::Downloads { downloads } if downloads.is_empty() => Some("no downloads"),
        _ => None,
    }
}

fn join_lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

fn format_table<R>(header: &[&str], rows: &[R], cells: impl Fn(&R) -> Vec<String>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table.add_rows(rows.iter().map(cells));
    join_lines(table.lines().map(|line| line.trim_end().to_owned()))
}

fn group_cells(row: &GroupListRow) -> Vec<String> {
    vec![
        row.group.clone(),
        row.owner.clone(),
        row.policy.clone(),
        row.members.to_string(),
        if row.member { "yours" } else { "" }.into(),
    ]
}

fn file_cells(row: &FileListRow) -> Vec<String> {
    vec![
        make_printable(&row.file),
        row.size_bytes.map_or_else(|| "?".into(), figures::format_size),
        row.seeders.to_string(),
        row.leechers.to_string(),
        row.sha1.clone().unwrap_or_else(|| "pieces only".into()),
    ]
}

fn node_text(node: &NodeStatus) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".into());
    let mut text = vec![
        format!("node      process {}", node.pid),
        format!(
            "peers     {}{}{}",
            node.listen
                .map_or_else(|| "not listening yet".into(), |address| format!("listening on {address}")),
            node.io.as_ref().map(|io| format!("; {}", figures::backend_label(io))).unwrap_or_default(),
            node.hash
                .as_ref()
                .map(|hash| format!("; SHA-1 by {}", figures::hash_label(hash)))
                .unwrap_or_default()
        ),
        format!("user      {}", or_none(node.user.clone())),
        format!("tracker   {}", or_none(node.tracker.map(|address| address.to_string()))),
    ];
    let sends =
        node.zero_copy.as_ref().filter(|sends| sends.mapped_bytes + sends.copied_bytes + sends.refused > 0);
    text.extend(sends.map(|sends| {
        let (mapped, copied) =
            (figures::format_size(sends.mapped_bytes), figures::format_size(sends.copied_bytes));
        format!("zero copy {mapped} sent, {copied} copied by the kernel, {} refused", sends.refused)
    }));
    text.extend(node.waits_for.iter().map(|what| format!("waits for {what}")));
    for WaitingSharesRow { user, shares } in &node.waiting_shares {
        let what = if *shares == 1 { "1 share waits" } else { &format!("{shares} shares wait") };
        text.push(format!(
            "shares    not logged in: {what} for `client login {}`",
            quoting::quote_word(user)
        ));
    }
    for share in &node.shares {
        let state = match &share.changed {
            Some(why) => format!("not served: {why}"),
            None => {
                format!(
                    "{}/{} pieces, {} sent",
                    share.held,
                    share.pieces,
                    figures::format_size(share.sent_bytes)
                )
            }
        };
        text.push(format!("shares    [{}] {}  {state}", share.group, share.file));
    }
    text.extend(
        node.downloads.iter().map(|download| format!("downloads {}", transfer::transfer_line(download))),
    );
    text.extend(node.troubles.iter().map(|trouble| format!("trouble   {trouble}")));
    join_lines(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> NodeAnswer {
        let file = |name: &str| FileListRow {
            file: name.into(),
            size_bytes: Some(1 << 20),
            sha1: None,
            seeders: 2,
            leechers: 1,
        };
        NodeAnswer::Files { group: "g".into(), files: vec![file("a b"), file("c")] }
    }

    #[test]
    fn lists_are_a_table_on_a_terminal_and_names_to_a_pipe() {
        assert_eq!(answer_text(&files(), false), "a b\nc\n");
        let shown = answer_text(&files(), true);
        assert_eq!(shown.lines().count(), 3);
        assert!(shown.contains("1.0 MiB") && shown.contains("seeders"), "{shown}");
        assert_eq!(answer_text(&NodeAnswer::Files { group: "g".into(), files: vec![] }, true), "");
    }

    #[test]
    fn a_file_name_cannot_break_its_line() {
        let file =
            FileListRow { file: "a\u{2028}b".into(), size_bytes: None, sha1: None, seeders: 0, leechers: 0 };
        let answer = NodeAnswer::Files { group: "g".into(), files: vec![file] };
        for terminal in [false, true] {
            assert!(answer_text(&answer, terminal).contains("a\\u{2028}b"));
        }
    }

    #[test]
    fn a_node_says_what_it_waits_for() {
        let node = NodeStatus {
            pid: 7,
            listen: None,
            io: None,
            zero_copy: None,
            hash: None,
            user: None,
            tracker: None,
            waits_for: vec!["a login".into()],
            shares: vec![],
            waiting_shares: vec![WaitingSharesRow { user: "u".into(), shares: 3 }],
            downloads: vec![],
            troubles: vec!["a record was lost".into()],
        };
        let shown = answer_text(&NodeAnswer::Node(node), false);
        assert!(shown.contains("waits for a login") && shown.contains("process 7"), "{shown}");
        assert!(shown.contains("trouble   a record was lost"), "{shown}");
        assert!(shown.contains("shares    not logged in: 3 shares wait for `client login u`"), "{shown}");
    }
}
