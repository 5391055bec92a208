//! Answers as text: tables on a terminal, one name per line to a pipe, sentences for the rest.
//!
//! Every line is free of control characters. On a terminal it fits the columns, except for the sentences.

use std::io::IsTerminal;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use rustix::termios::tcgetwinsize;

use super::{figures, transfer};
use crate::ipc::protocol::NodeAnswer;
use crate::ipc::rows::{FileListRow, GroupListRow, NodeStatus, PeerRow, WaitingSharesRow};
use crate::limits;
use crate::printable::{escape_line, make_printable, show_name, show_path};
use crate::quoting;

/// The form of lists on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextForm {
    /// For a program: one name a line.
    Pipe,
    /// For a reader: tables and texts that fit this many columns.
    Terminal { columns: u16 },
}

impl TextForm {
    pub(super) fn of_stdout() -> TextForm {
        if !std::io::stdout().is_terminal() {
            return TextForm::Pipe;
        }
        let columns = tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col);
        TextForm::Terminal { columns: if columns == 0 { limits::TERMINAL_COLUMNS_DEFAULT } else { columns } }
    }
}

/// The text for stdout, with a final line end; empty for an empty list.
pub(crate) fn answer_text(answer: &NodeAnswer, form: TextForm) -> String {
    match (answer, form) {
        (NodeAnswer::Groups { groups }, TextForm::Terminal { columns }) => {
            format_table(&["group", "owner", "policy", "members", "you"], groups, group_cells, columns)
        }
        (NodeAnswer::Files { files, .. }, TextForm::Terminal { columns }) => {
            let header = &["file", "size", "seeders", "leechers", "SHA-1"];
            if table_width(header, files, file_cells) <= columns.into() {
                return format_table(header, files, file_cells, columns);
            }
            format_table(header, files, short_file_cells, columns)
        }
        (NodeAnswer::Peers { peers, .. }, TextForm::Terminal { columns }) => {
            format_table(&["peer", "has"], peers, peer_cells, columns)
        }
        (NodeAnswer::Downloads { downloads }, form) => {
            let lines: Vec<_> = downloads.iter().map(transfer::listing_cells).collect();
            labelled_text(&lines, TRANSFER_MARK_COLUMNS, form)
        }
        (NodeAnswer::Node(node), form) => labelled_text(&node_lines(node), STATUS_LABEL_COLUMNS, form),
        (answer, _) => join_lines(answer_lines(answer)),
    }
}

/// An answer as sentences, or as one name a line.
fn answer_lines(answer: &NodeAnswer) -> Vec<String> {
    match answer {
        NodeAnswer::Said { message } | NodeAnswer::Joined { message, .. } => vec![message.clone()],
        NodeAnswer::Groups { groups } => groups.iter().map(|row| row.group.clone()).collect(),
        NodeAnswer::Requests { users, .. } => users.clone(),
        NodeAnswer::Files { files, .. } => files.iter().map(|row| make_printable(&row.file)).collect(),
        NodeAnswer::Peers { peers, .. } => peers.iter().map(|row| row.address.to_string()).collect(),
        NodeAnswer::Whoami { user, address: None } => vec![user.clone()],
        NodeAnswer::Whoami { user, address: Some(address) } => vec![format!("{user}, shares at {address}")],
        NodeAnswer::Uploaded { group, file, size_bytes, pieces, sha1, .. } => vec![format!(
            "[{group}] {file} is shared: {}, {pieces} {}, SHA-1 {sha1}",
            figures::format_size(*size_bytes),
            if *pieces == 1 { "piece" } else { "pieces" },
        )],
        NodeAnswer::Started(now) => {
            vec![format!("[{}] {} is being downloaded to {}", now.group, now.file, show_path(&now.path))]
        }
        NodeAnswer::Downloaded(now) => vec![transfer::summarize_transfer(now)],
        NodeAnswer::AlreadyThere { path, size_bytes, .. } => vec![format!(
            "{} is already there and verified ({})",
            show_path(path),
            figures::format_size(*size_bytes)
        )],
        NodeAnswer::Reachability(row) => vec![row.describe()],
        NodeAnswer::Downloads { .. } | NodeAnswer::Node(_) => {
            unreachable!("downloads and the status have labels and are rendered apart")
        }
    }
}

/// Notes on single rows of a list.
pub(crate) fn row_notes(answer: &NodeAnswer) -> Vec<&str> {
    let NodeAnswer::Peers { peers, .. } = answer else { return Vec::new() };
    peers.iter().filter_map(|row| row.trouble.as_ref()).map(|trouble| trouble.message.as_str()).collect()
}

/// A note that explains an empty or incomplete list, and says what to type next.
pub(crate) fn answer_remark(answer: &NodeAnswer) -> Option<String> {
    match answer {
        NodeAnswer::Groups { groups } if groups.is_empty() => {
            Some("there are no groups yet; `create_group GROUP` creates one".into())
        }
        NodeAnswer::Requests { group, users } if users.is_empty() => {
            Some(format!("no user asks to join {group}; a user asks with `join_group {group}`"))
        }
        NodeAnswer::Files { group, files } if files.is_empty() => {
            Some(format!("{group} has no files yet; `upload_file {group} FILE` shares one"))
        }
        NodeAnswer::Peers { only_here: true, .. } => Some("no other node has it".into()),
        NodeAnswer::Peers { group, peers, .. } if peers.is_empty() => {
            let group = quoting::quote_word(group);
            Some(format!(
                "no other node that is online has it; `list_files {group}` shows who has which file"
            ))
        }
        NodeAnswer::Downloads { downloads } if downloads.is_empty() => {
            Some("no downloads; `download_file GROUP NAME` starts one".into())
        }
        _ => None,
    }
}

fn join_lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| escape_line(&line) + "\n").collect()
}

/// Columns of the labels of `status`.
const STATUS_LABEL_COLUMNS: usize = 9;

/// Columns of the marks of `show_downloads`.
const TRANSFER_MARK_COLUMNS: usize = 3;

/// Blanks beside each cell of a table.
const CELL_PADDING: u16 = 2;

fn build_table<R>(header: &[&str], rows: &[R], cells: fn(&R) -> Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table.add_rows(rows.iter().map(cells));
    table
}

/// Columns that a table takes when no cell is wrapped.
fn table_width<R>(header: &[&str], rows: &[R], cells: fn(&R) -> Vec<String>) -> u32 {
    let widths = build_table(header, rows, cells).column_max_content_widths();
    widths.into_iter().map(|width| u32::from(width) + u32::from(CELL_PADDING)).sum()
}

/// A table in which cells are wrapped so that it fits `columns`.
fn format_table<R>(header: &[&str], rows: &[R], cells: fn(&R) -> Vec<String>, columns: u16) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = build_table(header, rows, cells);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    join_lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// Labels on the left and texts on the right. On a terminal the texts are wrapped so that they fit.
pub(super) fn labelled_text<L: AsRef<str>>(
    lines: &[(L, String)],
    label_columns: usize,
    form: TextForm,
) -> String {
    let padded = |label: &L| format!("{:<label_columns$}", label.as_ref());
    let TextForm::Terminal { columns } = form else {
        return join_lines(lines.iter().map(|(label, text)| format!("{} {text}", padded(label))));
    };
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    table.add_rows(lines.iter().map(|(label, text)| [padded(label), escape_line(text)]));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    join_lines(table.lines().map(|line| line.trim_end().to_owned()))
}

fn group_cells(row: &GroupListRow) -> Vec<String> {
    vec![
        row.group.clone(),
        row.owner.clone(),
        row.policy.clone(),
        row.members.to_string(),
        match (row.owned, row.member) {
            (true, _) => "owner",
            (false, true) => "member",
            (false, false) => "",
        }
        .into(),
    ]
}

fn peer_cells(row: &PeerRow) -> Vec<String> {
    vec![row.address.to_string(), if row.complete { "all" } else { "a part" }.into()]
}

fn file_cells(row: &FileListRow) -> Vec<String> {
    vec![
        show_name(&row.file),
        row.size_bytes.map_or_else(|| "?".into(), figures::format_size),
        row.seeders.to_string(),
        row.leechers.to_string(),
        row.sha1.clone().unwrap_or_else(|| "pieces only".into()),
    ]
}

/// The same with the first digits of the SHA-1.
fn short_file_cells(row: &FileListRow) -> Vec<String> {
    let short = row.sha1.as_ref().map(|sha1| {
        let digits: String = sha1.chars().take(limits::SHORT_SHA1_DIGITS).collect();
        format!("{digits}…")
    });
    file_cells(&FileListRow { sha1: short, ..row.clone() })
}

/// Label and text of each line.
fn node_lines(node: &NodeStatus) -> Vec<(&'static str, String)> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".into());
    let mut text = vec![
        ("node", format!("process {}", node.pid)),
        (
            "peers",
            format!(
                "{}{}{}",
                node.listen
                    .map_or_else(|| "not listening yet".into(), |address| format!("listening on {address}")),
                node.io.as_ref().map(|io| format!("; {}", figures::backend_label(io))).unwrap_or_default(),
                node.hash
                    .as_ref()
                    .map(|hash| format!("; SHA-1 by {}", figures::hash_label(hash)))
                    .unwrap_or_default()
            ),
        ),
        ("user", or_none(node.user.clone())),
        ("tracker", or_none(node.tracker.map(|address| address.to_string()))),
    ];
    text.extend(node.reachability.as_ref().map(|row| match row.problem_text() {
        Some(problem) => ("reached", format!("no: {problem}")),
        None => ("reached", format!("by the tracker, at {}", row.address)),
    }));
    let sends =
        node.zero_copy.as_ref().filter(|sends| sends.mapped_bytes + sends.copied_bytes + sends.refused > 0);
    text.extend(sends.map(|sends| {
        let (mapped, copied) =
            (figures::format_size(sends.mapped_bytes), figures::format_size(sends.copied_bytes));
        ("zero copy", format!("{mapped} sent, {copied} copied by the kernel, {} refused", sends.refused))
    }));
    text.extend(node.waits_for.iter().map(|what| ("waits for", what.clone())));
    for WaitingSharesRow { user, shares } in &node.waiting_shares {
        let what = if *shares == 1 { "1 share waits" } else { &format!("{shares} shares wait") };
        let user = quoting::quote_word(user);
        text.push(("shares", format!("not logged in: {what} for `client login {user}`")));
    }
    for share in &node.shares {
        let state = match &share.changed {
            Some(why) => format!("not served: {why}"),
            None => {
                format!(
                    "{}/{} {}, {} sent",
                    share.held,
                    share.pieces,
                    if share.pieces == 1 { "piece" } else { "pieces" },
                    figures::format_size(share.sent_bytes)
                )
            }
        };
        text.push(("shares", format!("[{}] {}  {state}", share.group, share.file)));
    }
    text.extend(node.downloads.iter().map(|download| ("downloads", transfer::transfer_line(download))));
    text.extend(node.troubles.iter().map(|trouble| ("trouble", trouble.clone())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: TextForm = TextForm::Terminal { columns: 200 };
    const NARROW: TextForm = TextForm::Terminal { columns: 60 };

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
        assert_eq!(answer_text(&files(), TextForm::Pipe), "a b\nc\n");
        let shown = answer_text(&files(), WIDE);
        assert_eq!(shown.lines().count(), 3);
        assert!(shown.contains("1.0 MiB") && shown.contains("seeders"), "{shown}");
        assert_eq!(answer_text(&NodeAnswer::Files { group: "g".into(), files: vec![] }, WIDE), "");
    }

    #[test]
    fn a_table_shows_characters_that_hide() {
        let row = |name: &str| FileListRow {
            file: name.into(),
            size_bytes: None,
            sha1: None,
            seeders: 0,
            leechers: 0,
        };
        let answer = NodeAnswer::Files { group: "g".into(), files: vec![row("ab"), row("a\u{200b}b")] };
        assert!(answer_text(&answer, WIDE).contains("a\\u{200b}b"));
        assert_eq!(
            answer_text(&answer, TextForm::Pipe),
            "ab\na\u{200b}b\n",
            "a program reads the name itself"
        );
    }

    #[test]
    fn a_file_name_cannot_break_its_line() {
        let file =
            FileListRow { file: "a\u{2028}b".into(), size_bytes: None, sha1: None, seeders: 0, leechers: 0 };
        let answer = NodeAnswer::Files { group: "g".into(), files: vec![file] };
        for form in [TextForm::Pipe, WIDE] {
            assert!(answer_text(&answer, form).contains("a\\u{2028}b"));
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
            reachability: None,
            waits_for: vec!["a login".into()],
            shares: vec![],
            waiting_shares: vec![WaitingSharesRow { user: "u".into(), shares: 3 }],
            downloads: vec![],
            troubles: vec!["a record was lost".into()],
        };
        let long = vec!["the trackers' addresses, which are in no file of this folder or its parent".into()];
        let (_, joined) = narrow_text(&NodeAnswer::Node(NodeStatus { waits_for: long, ..node.clone() }));
        assert!(
            joined.contains("waitsforthetrackers'addresses,whichareinnofileofthisfolderoritsparent"),
            "{joined}"
        );
        let shown = answer_text(&NodeAnswer::Node(node), TextForm::Pipe);
        assert!(shown.contains("waits for a login") && shown.contains("process 7"), "{shown}");
        assert!(shown.contains("trouble   a record was lost"), "{shown}");
        assert!(shown.contains("shares    not logged in: 3 shares wait for `client login u`"), "{shown}");
    }

    /// The text at 60 columns, which every line fits, and the text without its blanks and line ends.
    fn narrow_text(answer: &NodeAnswer) -> (String, String) {
        let shown = answer_text(answer, NARROW);
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        let joined = shown.split_whitespace().collect();
        (shown, joined)
    }

    #[test]
    fn lists_fit_a_narrow_terminal_and_are_whole_in_a_pipe() {
        let name = "model-00001-of-00191-with-a-very-long-name-that-has-no-blanks.safetensors";
        let file = FileListRow {
            file: name.into(),
            size_bytes: Some(u64::MAX),
            sha1: Some("0123456789abcdef0123456789abcdef01234567".into()),
            seeders: 12_345,
            leechers: 12_345,
        };
        let answer = NodeAnswer::Files { group: "g".into(), files: vec![file] };
        let (shown, _) = narrow_text(&answer);
        assert!(shown.contains("01234567…") && shown.contains("16.0 EiB"), "{shown}");
        assert!(answer_text(&answer, WIDE).contains("0123456789abcdef0123456789abcdef01234567"));
        assert_eq!(answer_text(&answer, TextForm::Pipe), format!("{name}\n"));
        let group = GroupListRow {
            group: "g".repeat(64),
            owner: "o".repeat(64),
            policy: "approval".into(),
            members: 10,
            member: true,
            owned: false,
        };
        let (shown, _) = narrow_text(&NodeAnswer::Groups { groups: vec![group] });
        assert!(shown.contains("approval") && shown.contains("member"), "{shown}");
        let peer = PeerRow {
            address: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap(),
            complete: false,
            trouble: None,
        };
        narrow_text(&NodeAnswer::Peers {
            group: "g".into(),
            file: "f".into(),
            peers: vec![peer],
            only_here: false,
        });
    }

    #[test]
    fn roles_in_a_group_are_told_apart() {
        let row = |member, owned| GroupListRow {
            group: "g".into(),
            owner: "o".into(),
            policy: "open".into(),
            members: 2,
            member,
            owned,
        };
        let groups = vec![row(true, true), row(true, false), row(false, false)];
        let shown = answer_text(&NodeAnswer::Groups { groups }, WIDE);
        let roles: Vec<&str> = shown.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
        assert_eq!(roles, ["you", "owner", "member", "2"]);
    }

    #[test]
    fn every_empty_list_has_a_remark() {
        let (group, file) = (String::from("g"), String::from("f"));
        for answer in [
            NodeAnswer::Groups { groups: vec![] },
            NodeAnswer::Requests { group: group.clone(), users: vec![] },
            NodeAnswer::Files { group: group.clone(), files: vec![] },
            NodeAnswer::Peers { group, file, peers: vec![], only_here: false },
            NodeAnswer::Downloads { downloads: vec![] },
        ] {
            assert!(answer_remark(&answer).is_some_and(|remark| remark.contains('`')), "{answer:?}");
            assert_eq!(
                (answer_text(&answer, WIDE), answer_text(&answer, TextForm::Pipe)),
                Default::default()
            );
        }
    }
}
