//! `upload_file`: accepts GROUP FILE, and FILE GROUP if only that order makes sense.

use std::path::{Path, PathBuf};

use tracker::api::request::Command;

use super::context::{AttemptFault, CommandContext};
use super::task::parse_group;
use crate::exit::{ClientFault, ExitCause};
use crate::ipc::protocol::{NodeAnswer, NodeRequest};

pub(super) fn run_upload(
    context: &mut CommandContext<'_>,
    first: &str,
    second: &Path,
) -> Result<(), ClientFault> {
    context.retry_while_no_tracker(|context| {
        let (group, path) = resolve_word_order(context, first, second).map_err(AttemptFault::Answered)?;
        let path = context.absolute_path(&path).map_err(AttemptFault::Abandoned)?;
        let group = parse_group(&group).map_err(AttemptFault::Abandoned)?;
        context.request_and_show(&NodeRequest::Upload { group, path }).map_err(AttemptFault::Answered)
    })
}

/// Decides which argument is the group and which the file.
fn resolve_word_order(
    context: &mut CommandContext<'_>,
    first: &str,
    second: &Path,
) -> Result<(String, PathBuf), ClientFault> {
    let absolute = |path: &Path| context.directory.join(path);
    let as_typed = (first.to_owned(), absolute(second));
    let swapped = second.to_str().map(|group| (group.to_owned(), absolute(Path::new(first))));
    let swapped = swapped.filter(|(group, path)| !group.contains('/') && path.is_file());
    match (as_typed.1.is_file(), swapped) {
        (true, None) => Ok(as_typed),
        (false, Some(swapped)) => {
            // A file may happen to have the group's name, while the other word is a mistyped file name.
            let groups = list_known_groups(context)?;
            let mistyped = groups.contains(&as_typed.0) && !groups.contains(&swapped.0);
            if mistyped { Err(missing_file_fault(&as_typed.1)) } else { Ok(swapped) }
        }
        (false, None) => Err(missing_file_fault(&absolute(pick_path_word(first, second)))),
        (true, Some(swapped)) => {
            let groups = list_known_groups(context)?;
            let only_swapped = groups.contains(&swapped.0) && !groups.contains(&as_typed.0);
            Ok(if only_swapped { swapped } else { as_typed })
        }
    }
}

/// The argument meant as the file when neither is one: the first only if it alone looks like a path.
fn pick_path_word<'a>(first: &'a str, second: &'a Path) -> &'a Path {
    let looks = |word: &Path| word.components().count() > 1 || word.extension().is_some();
    if looks(Path::new(first)) && !looks(second) && !second.exists() { Path::new(first) } else { second }
}

fn list_known_groups(context: &mut CommandContext<'_>) -> Result<Vec<String>, ClientFault> {
    let answer = context.connection.request(&Command::ListGroups.into(), &mut |_| Ok(()));
    match context.mark_interrupted(answer)? {
        NodeAnswer::Groups { groups } => Ok(groups.into_iter().map(|row| row.group).collect()),
        _ => Ok(Vec::new()),
    }
}

fn missing_file_fault(path: &Path) -> ClientFault {
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            ClientFault::new(ExitCause::Usage, format!("{} is a directory, not a file", path.display()))
                .fix("upload its files one by one")
        }
        Ok(_) => ClientFault::new(ExitCause::Usage, format!("{} is not a regular file", path.display()))
            .fix("copy its content to a regular file, and upload that"),
        Err(error) => ClientFault::io("read", path, &error).fix("check the path: `upload_file GROUP FILE`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_that_looks_like_a_path_is_taken_as_the_file() {
        let of = |first: &'static str, second: &'static str| pick_path_word(first, Path::new(second));
        assert_eq!(of("group", "nowhere.bin"), Path::new("nowhere.bin"));
        assert_eq!(of("nowhere.bin", "group"), Path::new("nowhere.bin"));
        assert_eq!(of("./nowhere", "group"), Path::new("./nowhere"));
        assert_eq!(of("a.b", "c.d"), Path::new("c.d"));
        assert_eq!(of("group", "nowhere"), Path::new("nowhere"));
    }
}
