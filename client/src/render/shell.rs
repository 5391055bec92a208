//! Suggested commands as a shell needs them: there `login alice` would start another program.

use std::borrow::Cow;

use crate::cli;

/// Puts `client` before each of Shoal's commands between backticks.
pub(super) fn prefix_shell_commands(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let is_marked = index % 2 == 1;
        let is_ours = part.split(' ').next().is_some_and(cli::is_command);
        if is_marked && is_ours { Cow::Owned(format!("client {part}")) } else { Cow::Borrowed(part) }
    });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_commands_of_the_client_are_changed() {
        for (advice, typed) in [
            ("`login alice`", "`client login alice`"),
            (
                "`list_groups` and `list_files GROUP` show what there is",
                "`client list_groups` and `client list_files GROUP` show what there is",
            ),
            ("`client serve` starts one; `--state DIR`", "`client serve` starts one; `--state DIR`"),
            ("raise `ulimit -n`, then login again", "raise `ulimit -n`, then login again"),
            ("end it, then `quit`", "end it, then `client quit`"),
            ("an open ` and login", "an open ` and login"),
        ] {
            assert_eq!(prefix_shell_commands(advice), typed);
        }
    }
}
