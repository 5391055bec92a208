//! `upload_file`: accepts GROUP FILE, and FILE GROUP if only that order makes sense.

use std::path::{Path, PathBuf};

use engine::proto::manifest::FileName;
use tracker::api::{GroupFile, GroupId};

use super::context::{AttemptFault, CommandContext};
use super::suggestions;
use super::task::parse_group;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::NodeRequest;
use crate::printable::show_path;
use crate::quoting;

pub(super) fn run_upload(
    context: &mut CommandContext<'_>,
    first: &Path,
    second: &Path,
    listed_name: Option<&FileName>,
) -> Result<(), ClientFault> {
    context.retry_while_no_tracker(|context| {
        let (group, path) = resolve_word_order(context, first, second).map_err(AttemptFault::Answered)?;
        let group = parse_group(&group).map_err(AttemptFault::Abandoned)?;
        let name = match listed_name {
            Some(name) => name.clone(),
            None => own_name(&group, &path).map_err(AttemptFault::Abandoned)?,
        };
        let request = NodeRequest::Upload { file: GroupFile { group, name }, path };
        context.request_and_show(&request).map_err(AttemptFault::Answered)
    })
}

/// The name of a file as its name in a group.
fn own_name(group: &GroupId, path: &Path) -> Result<FileName, ClientFault> {
    let bad = match path.file_name().map(|name| name.to_str()) {
        None => "it has no name".to_owned(),
        Some(None) => "its name is not UTF-8, which names in a group must be".to_owned(),
        Some(Some(name)) => match FileName::new(name) {
            Ok(name) => return Ok(name),
            Err(bad) => bad.to_string(),
        },
    };
    let message = format!("{} cannot be shared under its own name: {bad}", show_path(path));
    let fix = quoting::upload_as(group.as_str(), path);
    Err(ClientFault::new(ExitCause::Usage, message).fix(format!("{fix} shares it under another name")))
}

/// Decides which argument is the group and which the file.
fn resolve_word_order(
    context: &mut CommandContext<'_>,
    first: &Path,
    second: &Path,
) -> Result<(String, PathBuf), ClientFault> {
    let read = |context: &CommandContext<'_>, group: &Path, path: &Path| {
        let path = context.directory.join(path);
        group.to_str().filter(|_| path.is_file()).map(|group| (group.to_owned(), path))
    };
    let as_typed = read(context, first, second);
    let swapped = read(context, second, first).filter(|(group, _)| !group.contains('/'));
    match (as_typed, swapped) {
        (Some(as_typed), None) => Ok(as_typed),
        (None, None) => {
            let word = find_file_word(context, first, second);
            let word = word.unwrap_or_else(|| pick_path_word(first, second));
            let fault = missing_file_fault(&context.directory.join(word));
            let swapped = quoting::quote_file(&second.display().to_string(), &first.display().to_string());
            Err(if word == first {
                fault.fix(format!("check the path; the group comes first: `upload_file {swapped}`"))
            } else {
                fault
            })
        }
        (None, Some(swapped)) => {
            // A file may happen to have the group's name, while the other word is a mistyped file name.
            match find_file_word(context, first, second) {
                Some(word) if word == second => Err(missing_file_fault(&context.directory.join(second))),
                _ => Ok(swapped),
            }
        }
        (Some(as_typed), Some(swapped)) => {
            let groups = suggestions::list_groups(context);
            let only_swapped = groups.contains(&swapped.0) && !groups.contains(&as_typed.0);
            Ok(if only_swapped { swapped } else { as_typed })
        }
    }
}

/// The argument that is not a group, if exactly one of the two is a group.
fn find_file_word<'a>(
    context: &mut CommandContext<'_>,
    first: &'a Path,
    second: &'a Path,
) -> Option<&'a Path> {
    let groups = suggestions::list_groups(context);
    let is_group = |word: &Path| groups.iter().any(|group| Path::new(group) == word);
    match (is_group(first), is_group(second)) {
        (true, false) => Some(second),
        (false, true) => Some(first),
        _ => None,
    }
}

/// The argument meant as the file when neither is one: the first only if it alone looks like a path.
fn pick_path_word<'a>(first: &'a Path, second: &'a Path) -> &'a Path {
    let looks = |word: &Path| word.components().count() > 1 || word.extension().is_some();
    if looks(first) && !looks(second) && !second.exists() { first } else { second }
}

fn missing_file_fault(path: &Path) -> ClientFault {
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            ClientFault::new(ExitCause::Usage, format!("{} is a directory, not a file", show_path(path)))
                .fix("upload its files one by one")
        }
        Ok(_) => ClientFault::new(ExitCause::Usage, format!("{} is not a regular file", show_path(path)))
            .fix("copy its content to a regular file, and upload that"),
        Err(error) => {
            let usage = "check the path: `upload_file GROUP FILE`";
            let fix = match nearest_file(path) {
                Some(near) => format!("did you mean {}? Otherwise {usage}", quoting::quote_path(&near)),
                None => usage.to_owned(),
            };
            ClientFault::io("read", path, &error).default_fix(fix)
        }
    }
}

/// A file in the same directory whose name is nearly the same.
fn nearest_file(path: &Path) -> Option<PathBuf> {
    let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let known: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    suggestions::nearest(name, &known).map(|name| directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_that_looks_like_a_path_is_taken_as_the_file() {
        let of =
            |first: &'static str, second: &'static str| pick_path_word(Path::new(first), Path::new(second));
        assert_eq!(of("group", "nowhere.bin"), Path::new("nowhere.bin"));
        assert_eq!(of("nowhere.bin", "group"), Path::new("nowhere.bin"));
        assert_eq!(of("./nowhere", "group"), Path::new("./nowhere"));
        assert_eq!(of("a.b", "c.d"), Path::new("c.d"));
        assert_eq!(of("group", "nowhere"), Path::new("nowhere"));
    }

    #[test]
    fn a_name_that_cannot_be_listed_is_refused_with_a_command_that_works() {
        use std::os::unix::ffi::OsStrExt;
        let group = GroupId::new("g").unwrap();
        assert_eq!(own_name(&group, Path::new("/a/b c")).map(|name| name.to_string()), Ok("b c".into()));
        for (path, command) in [
            (&b"/a/caf\xe9.bin"[..], r"`upload_file g $'/a/caf\xE9.bin' --as caf_.bin`"),
            (b"/a/x\nb", r"`upload_file g $'/a/x\x0Ab' --as x_b`"),
            (b"/a/..", "`upload_file g /a/.. --as NAME`"),
        ] {
            let fault = own_name(&group, Path::new(std::ffi::OsStr::from_bytes(path))).unwrap_err();
            assert_eq!(fault.exit, ExitCause::Usage);
            assert!(fault.fix.as_ref().is_some_and(|fix| fix.starts_with(command)), "{fault:?}");
        }
    }
}
