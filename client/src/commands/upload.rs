//! `upload_file`: both orders of its words, where exactly one of them makes sense.

use std::path::{Path, PathBuf};

use super::context::Context;
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Ask};

/// Hashes a file, tells the trackers, and has the node serve it.
pub(super) fn run(context: &mut Context<'_>, first: &str, second: &Path) -> Result<(), Fault> {
    let (group, path) = read_order(context, first, second)?;
    context.show(&Ask::Upload { group, path })
}

/// Which word is the group and which the file.
fn read_order(context: &mut Context<'_>, first: &str, second: &Path) -> Result<(String, PathBuf), Fault> {
    let absolute = |path: &Path| context.directory.join(path);
    let as_typed = (first.to_owned(), absolute(second));
    let turned = second.to_str().map(|group| (group.to_owned(), absolute(Path::new(first))));
    let turned = turned.filter(|(group, path)| !group.contains('/') && path.is_file());
    match (as_typed.1.is_file(), turned) {
        (true, None) => Ok(as_typed),
        (false, Some(turned)) => Ok(turned),
        (false, None) => Err(missing(&as_typed.1)),
        (true, Some(turned)) => {
            let groups = known_groups(context)?;
            let only_turned = groups.contains(&turned.0) && !groups.contains(&as_typed.0);
            Ok(if only_turned { turned } else { as_typed })
        }
    }
}

fn known_groups(context: &mut Context<'_>) -> Result<Vec<String>, Fault> {
    let answer = context.link.ask(&Ask::ListGroups, &mut |_| Ok(()));
    match context.judge(answer)? {
        Answer::Groups { groups } => Ok(groups.into_iter().map(|row| row.group).collect()),
        _ => Ok(Vec::new()),
    }
}

fn missing(path: &Path) -> Fault {
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            Fault::new(Exit::Usage, format!("{} is a directory, not a file", path.display()))
                .fix("upload its files one by one")
        }
        Ok(_) => Fault::new(Exit::Usage, format!("{} is no regular file", path.display())),
        Err(error) => Fault::io("read", path, &error).fix("upload_file <group_id> <file_path>"),
    }
}
