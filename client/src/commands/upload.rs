//! `upload_file`: both orders of its words, where exactly one of them makes sense.

use std::path::{Path, PathBuf};

use super::context::{Asked, Context};
use crate::exit::{Exit, Fault};
use crate::front::protocol::{Answer, Ask};

/// Hashes a file, tells the trackers, and has the node serve it.
pub(super) fn run(context: &mut Context<'_>, first: &str, second: &Path) -> Result<(), Fault> {
    context.patiently(|context| {
        let (group, path) = read_order(context, first, second).map_err(Asked::Answered)?;
        let path = context.path(&path).map_err(Asked::Over)?;
        context.show(&Ask::Upload { group, path }).map_err(Asked::Answered)
    })
}

/// Which word is the group and which the file.
fn read_order(context: &mut Context<'_>, first: &str, second: &Path) -> Result<(String, PathBuf), Fault> {
    let absolute = |path: &Path| context.directory.join(path);
    let as_typed = (first.to_owned(), absolute(second));
    let turned = second.to_str().map(|group| (group.to_owned(), absolute(Path::new(first))));
    let turned = turned.filter(|(group, path)| !group.contains('/') && path.is_file());
    match (as_typed.1.is_file(), turned) {
        (true, None) => Ok(as_typed),
        (false, Some(turned)) => {
            // A file may have the group's name by chance, and the other word be a file's that was mistyped.
            let groups = known_groups(context)?;
            let mistyped = groups.contains(&as_typed.0) && !groups.contains(&turned.0);
            if mistyped { Err(missing(&as_typed.1)) } else { Ok(turned) }
        }
        (false, None) => Err(missing(&absolute(path_like(first, second)))),
        (true, Some(turned)) => {
            let groups = known_groups(context)?;
            let only_turned = groups.contains(&turned.0) && !groups.contains(&as_typed.0);
            Ok(if only_turned { turned } else { as_typed })
        }
    }
}

/// Which word was meant as the file, when neither is one: the first only if it alone looks like a path.
fn path_like<'a>(first: &'a str, second: &'a Path) -> &'a Path {
    let looks = |word: &Path| word.components().count() > 1 || word.extension().is_some();
    if looks(Path::new(first)) && !looks(second) && !second.exists() { Path::new(first) } else { second }
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
        Ok(_) => Fault::new(Exit::Usage, format!("{} is no regular file", path.display()))
            .fix("copy what it gives into a file, and upload that"),
        Err(error) => Fault::io("read", path, &error).fix("check the path: `upload_file GROUP FILE`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_looks_like_a_path_is_the_one_named() {
        let of = |first: &'static str, second: &'static str| path_like(first, Path::new(second));
        assert_eq!(of("group", "nowhere.bin"), Path::new("nowhere.bin"));
        assert_eq!(of("nowhere.bin", "group"), Path::new("nowhere.bin"));
        assert_eq!(of("./nowhere", "group"), Path::new("./nowhere"));
        assert_eq!(of("a.b", "c.d"), Path::new("c.d"));
        assert_eq!(of("group", "nowhere"), Path::new("nowhere"));
    }
}
