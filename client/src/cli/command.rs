//! The commands, the same words at the prompt and on the command line.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// How a group admits members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyOption {
    /// Whoever asks is a member at once.
    #[default]
    Open,
    /// The owner accepts each member.
    Approval,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum ClientCommand {
    /// Make a user; a password left out is asked for
    CreateUser {
        /// 1 to 64 letters, digits, `_`, `.` or `-`
        user_id: String,
        /// 1 to 1,024 bytes
        password: Option<String>,
    },
    /// Log in; a password left out is asked for
    ///
    /// `--password-file FILE` reads it from a file. The session outlives the program, and ends 30 days after the login.
    Login {
        /// Who
        user_id: String,
        /// The password
        password: Option<String>,
    },
    /// Log out: this node's shares go offline
    Logout,
    /// Change your password; passwords left out are asked for
    ///
    /// Your other sessions end; this one goes on. With `--password-file FILE` the old password is the file's first line
    /// and the new one its second.
    ChangePassword {
        /// The password so far
        #[arg(requires = "new_password")]
        password: Option<String>,
        /// 1 to 1,024 bytes
        new_password: Option<String>,
    },
    /// Make a group, which is then yours
    CreateGroup {
        /// 1 to 64 letters, digits, `_`, `.` or `-`
        group_id: String,
        /// How it admits members
        #[arg(value_enum, default_value = "open")]
        policy: PolicyOption,
    },
    /// Become a member, or ask to
    JoinGroup {
        /// Which group
        group_id: String,
    },
    /// Leave; what you share there goes offline
    LeaveGroup {
        /// Which group
        group_id: String,
    },
    /// The groups that there are
    ListGroups,
    /// Who asks to become a member of your group
    ListRequests {
        /// Which group
        group_id: String,
    },
    /// Accept a new member
    AcceptRequest {
        /// Which group
        group_id: String,
        /// Whom
        user_id: String,
    },
    /// Decline a request to join
    RejectRequest {
        /// Which group
        group_id: String,
        /// Whom
        user_id: String,
    },
    /// Remove a member from your group
    ///
    /// Nobody serves that user any more once the ticket that they hold has expired, within 10 minutes.
    RemoveMember {
        /// Which group
        group_id: String,
        /// Whom
        user_id: String,
    },
    /// Take a file off a group's list and free its name
    RemoveFile {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// Share a file with a group
    ///
    /// Hashes the file, lists it in the group, and serves it to the members. `upload_file FILE GROUP` works too where only
    /// that makes sense.
    ///
    /// With a running node (`client serve` or a prompt) the command ends as soon as that node serves the file. Without one it is
    /// itself the node, and shares until Ctrl-C.
    UploadFile {
        /// Which group
        group_id: String,
        /// The file
        file_path: PathBuf,
    },
    /// Fetch a file from everybody who has any part of it
    ///
    /// Ends when the file is on the disk under its own name, verified and synced. Until then its data lie beside it in a file
    /// that ends in `.part`. The same command given again goes on where an earlier one stopped.
    ///
    /// What has arrived is shared with others meanwhile, and afterwards by a running node (`client serve` or a prompt).
    /// `--overwrite` replaces a file that differs; `--wait SECONDS` says how long the download may stand still.
    DownloadFile {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
        /// A directory, or the file's new name; with a `/` at its end always a directory, which must exist
        destination_path: PathBuf,
    },
    /// The files of a group
    ListFiles {
        /// Which group
        group_id: String,
    },
    /// Stop sharing a file from this node
    StopShare {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// This node's downloads
    ShowDownloads,
    /// Pause a download
    Pause {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// Continue a paused download
    Resume {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// Give up a download and remove its partial file
    Cancel {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// Who has a file now
    GetPeers {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
    },
    /// Who you are to the trackers
    Whoami,
    /// Whether a node runs here, and how it is
    Status,
    /// Check what Shoal needs here, and say what to do about what is missing
    Doctor,
    /// Run the node without a prompt, for services
    ///
    /// It listens for peers, goes on with what was shared and fetched, and carries out the commands that are given beside it,
    /// until SIGTERM, Ctrl-C or `client quit`. Options of the node are those whose help begins with `Node:`.
    Serve,
    /// Leave the prompt; on the command line: end the running node
    Quit,
}
