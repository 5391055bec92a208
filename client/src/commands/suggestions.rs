//! "Did you mean": what a command that found nothing may have meant.
//!
//! Compares the typed names with the groups and files that the node knows of: first in the other order, then by edit
//! distance. A suggestion is added to the error and never carried out.

use engine::proto::manifest::FileName;
use tracker::api::GroupId;
use tracker::api::failure::FILE_REMOVED_BY;
use tracker::api::request::{Command, ListPage};

use super::context::CommandContext;
use crate::cli::command::{ClientCommand, FileArgs, MemberArgs};
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeRequest};
use crate::quoting::quote_word;

/// What the second name of a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    /// A file that the trackers list.
    ListedFile,
    /// The file of one of this node's downloads.
    Download,
    /// A user who asks to join.
    JoiningUser,
    /// A name for which there is no list.
    Unlisted,
}

/// The names in a typed command.
#[derive(Clone, Debug)]
pub(super) struct TypedNames {
    verb: &'static str,
    group: String,
    /// The second name, with its kind.
    name: Option<(NameKind, String)>,
    /// What follows the names, as typed.
    rest: Vec<String>,
}

impl TypedNames {
    /// The names in a command; `None` if it takes no group.
    pub(super) fn of(command: &ClientCommand) -> Option<TypedNames> {
        let group_alone =
            |verb, group: &str| TypedNames { verb, group: group.into(), name: None, rest: Vec::new() };
        let file = |verb, kind, args: &FileArgs| TypedNames {
            name: Some((kind, args.file_name.clone())),
            ..group_alone(verb, &args.group_id)
        };
        let member = |verb, kind, args: &MemberArgs| TypedNames {
            name: Some((kind, args.user_id.clone())),
            ..group_alone(verb, &args.group_id)
        };
        Some(match command {
            ClientCommand::JoinGroup(args) => group_alone("join_group", &args.group_id),
            ClientCommand::LeaveGroup { group_id, .. } => group_alone("leave_group", group_id),
            ClientCommand::ListRequests(args) => group_alone("list_requests", &args.group_id),
            ClientCommand::ListFiles(args) => group_alone("list_files", &args.group_id),
            ClientCommand::UploadFile { group_id, file_path, listed_name } => {
                let listed_as = listed_name.iter().flat_map(|name| ["--as", name]);
                TypedNames {
                    rest: std::iter::once(file_path.to_str()?).chain(listed_as).map(str::to_owned).collect(),
                    ..group_alone("upload_file", group_id.to_str()?)
                }
            }
            ClientCommand::DownloadFile { file: args, destination_path } => TypedNames {
                rest: destination_path
                    .to_str()
                    .filter(|path| *path != ".")
                    .map(str::to_owned)
                    .into_iter()
                    .collect(),
                ..file("download_file", NameKind::ListedFile, args)
            },
            ClientCommand::RemoveFile(args) => file("remove_file", NameKind::ListedFile, args),
            ClientCommand::StopShare(args) => file("stop_share", NameKind::ListedFile, args),
            ClientCommand::GetPeers(args) => file("get_peers", NameKind::ListedFile, args),
            ClientCommand::Pause(args) => file("pause", NameKind::Download, args),
            ClientCommand::Resume(args) => file("resume", NameKind::Download, args),
            ClientCommand::Cancel(args) => file("cancel", NameKind::Download, args),
            ClientCommand::AcceptRequest(args) => member("accept_request", NameKind::JoiningUser, args),
            ClientCommand::RejectRequest(args) => member("reject_request", NameKind::JoiningUser, args),
            ClientCommand::RemoveMember(args) => member("remove_member", NameKind::Unlisted, args),
            _ => return None,
        })
    }

    /// The command with other names.
    fn with_names(&self, group: &str, name: Option<&str>) -> String {
        let names = std::iter::once(group).chain(name);
        let words = names.chain(self.rest.iter().map(String::as_str)).map(quote_word);
        std::iter::once(self.verb.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// For a name that cannot be a group's: suggests the other order if that is valid.
pub(super) fn suggest_word_order(fault: ClientFault, typed: Option<&TypedNames>) -> ClientFault {
    match typed {
        Some(typed) if fault.exit == ExitCause::Usage => match &typed.name {
            Some((NameKind::ListedFile | NameKind::Download, name))
                if GroupId::new(&typed.group).is_err()
                    && GroupId::new(name).is_ok()
                    && FileName::new(&typed.group).is_ok() =>
            {
                add_suggestion(fault, &typed.with_names(name, Some(&typed.group)))
            }
            _ => fault,
        },
        _ => fault,
    }
}

/// For a group or a file that was not found: suggests the one that may have been meant.
pub(super) fn suggest_names(
    fault: ClientFault,
    typed: Option<&TypedNames>,
    context: &mut CommandContext<'_>,
) -> ClientFault {
    // A file that was removed was named right.
    let is_unknown = fault.exit == ExitCause::NotFound && !fault.message.contains(FILE_REMOVED_BY);
    let Some(typed) = typed.filter(|_| is_unknown && !context.signals.was_signalled()) else { return fault };
    match find_suggestion(typed, context) {
        Some(command) => add_suggestion(fault, &command),
        None => fault,
    }
}

fn add_suggestion(fault: ClientFault, command: &str) -> ClientFault {
    let fix = match &fault.fix {
        Some(fix) => format!("did you mean `{command}`? Otherwise {fix}"),
        None => format!("did you mean `{command}`?"),
    };
    fault.fix(fix)
}

fn find_suggestion(typed: &TypedNames, context: &mut CommandContext<'_>) -> Option<String> {
    let name = typed.name.as_ref().map(|(_, name)| name.as_str());
    if let Some((NameKind::Download, name)) = &typed.name {
        let downloads = list_downloads(context);
        let (group, file) = nearest_pair(&typed.group, name, &downloads)?;
        return Some(typed.with_names(&group, Some(&file)));
    }
    let groups = list_groups(context);
    if !groups.contains(&typed.group) {
        return match name {
            Some(name) if groups.iter().any(|group| group == name) => {
                Some(typed.with_names(name, Some(&typed.group)))
            }
            name => nearest(&typed.group, &groups).map(|group| typed.with_names(group, name)),
        };
    }
    let (kind, name) = typed.name.as_ref()?;
    let known = list_names(context, *kind, GroupId::new(&typed.group).ok()?);
    if known.contains(name) {
        return None;
    }
    nearest(name, &known).map(|name| typed.with_names(&typed.group, Some(name)))
}

/// The name that a typed one may have meant: the nearest one, else the only one that begins like it.
pub(super) fn nearest<'a>(typed: &str, known: &'a [String]) -> Option<&'a String> {
    let lower = typed.to_lowercase();
    let length = typed.chars().count();
    let most = (length / 3).max(1).min(length.saturating_sub(1));
    let distance = |name: &String| strsim::osa_distance(&lower, &name.to_lowercase());
    let near = known.iter().map(|name| (distance(name), name)).filter(|(distance, _)| *distance <= most);
    if let Some((_, name)) = near.min_by_key(|(distance, _)| *distance) {
        return Some(name);
    }
    let mut longer = known.iter().filter(|name| !lower.is_empty() && name.to_lowercase().starts_with(&lower));
    longer.next().filter(|_| longer.next().is_none())
}

/// The download that a group and a file may have meant, in either order.
fn nearest_pair(group: &str, file: &str, known: &[(String, String)]) -> Option<(String, String)> {
    if let Some(swapped) =
        known.iter().find(|(known_group, known_file)| known_group == file && known_file == group)
    {
        return Some(swapped.clone());
    }
    let joined: Vec<String> = known.iter().map(|(group, file)| format!("{group} {file}")).collect();
    let found = nearest(&format!("{group} {file}"), &joined)?;
    known.iter().zip(&joined).find(|(_, joined)| *joined == found).map(|(pair, _)| pair.clone())
}

/// Asks the node. A failure means that there is nothing to suggest.
fn request(context: &mut CommandContext<'_>, request: &NodeRequest) -> Option<NodeAnswer> {
    context.connection.request(request, &mut |_| Ok(())).ok()
}

pub(super) fn list_groups(context: &mut CommandContext<'_>) -> Vec<String> {
    match request(context, &Command::ListGroups { page: ListPage::whole() }.into()) {
        Some(NodeAnswer::Groups { groups }) => groups.into_iter().map(|row| row.group).collect(),
        _ => Vec::new(),
    }
}

fn list_names(context: &mut CommandContext<'_>, kind: NameKind, group: GroupId) -> Vec<String> {
    let command = match kind {
        NameKind::ListedFile => Command::ListFiles { group, page: ListPage::whole() },
        NameKind::JoiningUser => Command::ListRequests { group, page: ListPage::whole() },
        NameKind::Download | NameKind::Unlisted => return Vec::new(),
    };
    match request(context, &command.into()) {
        Some(NodeAnswer::Files { files, .. }) => files.into_iter().map(|row| row.file).collect(),
        Some(NodeAnswer::Requests { users, .. }) => users,
        _ => Vec::new(),
    }
}

fn list_downloads(context: &mut CommandContext<'_>) -> Vec<(String, String)> {
    match request(context, &NodeRequest::ShowDownloads) {
        Some(NodeAnswer::Downloads { downloads }) => {
            downloads.into_iter().map(|row| (row.group, row.file)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_distant_one_is_not() {
        let known: Vec<String> =
            ["weights", "g", "base-70b.safetensors", "base-7b.bin", "Notes.txt"].map(str::to_owned).into();
        for (typed, wanted) in [
            ("wieghts", Some("weights")),
            ("weight", Some("weights")),
            ("notes.txt", Some("Notes.txt")),
            ("base-70b.safetensor", Some("base-70b.safetensors")),
            ("base-70", Some("base-70b.safetensors")),
            ("base-7", None),
            ("h", None),
            ("photos", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &known).map(String::as_str), wanted, "{typed}");
        }
    }

    #[test]
    fn a_download_is_found_in_either_order() {
        let known = vec![("weights".to_owned(), "a b.bin".to_owned())];
        for (group, file) in [("a b.bin", "weights"), ("wieghts", "a b.bin"), ("weights", "a b.bni")] {
            assert_eq!(nearest_pair(group, file, &known).as_ref(), known.first(), "{group} {file}");
        }
        assert_eq!(nearest_pair("photos", "x", &known), None);
    }

    #[test]
    fn a_group_that_can_only_be_a_file_suggests_the_other_order() {
        let args = FileArgs { group_id: "my file.bin".into(), file_name: "weights".into() };
        let typed =
            TypedNames::of(&ClientCommand::DownloadFile { file: args, destination_path: "/d".into() });
        let fault = ClientFault::new(ExitCause::Usage, "m").fix("f");
        assert_eq!(
            suggest_word_order(fault, typed.as_ref()).fix.as_deref(),
            Some("did you mean `download_file weights 'my file.bin' /d`? Otherwise f")
        );
    }
}
