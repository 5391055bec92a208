//! The commands of the command line and of the prompt, which takes all but `serve`.
//!
//! Words of other programs for the same thing (`ls`, `get`, `put`, `exit`) are understood, but not listed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How a group admits members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyOption {
    /// Everyone who asks becomes a member at once.
    #[default]
    Open,
    /// The owner accepts each member.
    Approval,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum ClientCommand {
    /// Create a user; asks for the password if it is left out
    ///
    /// Logs the new user in, unless another user is logged in here.
    CreateUser {
        /// Name: 1 to 64 letters, digits, `_`, `.` or `-`
        user_id: String,
        /// Password: 1 to 1,024 bytes
        password: Option<String>,
    },
    /// Log in; asks for the password if it is left out
    ///
    /// `--password-file FILE` reads it from a file. The session outlives the program and ends 30 days after the login.
    Login {
        /// User name
        user_id: String,
        /// Password
        password: Option<String>,
    },
    /// Log out; this node's shares go offline
    Logout,
    /// Change your password; asks for passwords that are left out
    ///
    /// Ends your other sessions; the current one continues. With `--password-file FILE` the old password is the file's first
    /// line and the new one its second.
    ChangePassword {
        /// Current password
        #[arg(requires = "new_password")]
        password: Option<String>,
        /// New password: 1 to 1,024 bytes
        new_password: Option<String>,
    },
    /// Create a group, which you then own
    CreateGroup {
        /// Name: 1 to 64 letters, digits, `_`, `.` or `-`
        group_id: String,
        /// How the group admits members
        #[arg(value_enum, default_value = "open")]
        policy: PolicyOption,
    },
    /// Join a group, or ask to join it
    JoinGroup(GroupArgs),
    /// Leave a group; your shares in it go offline
    ///
    /// When the owner leaves, the member who joined first becomes the owner. When the last member leaves, the group and its list
    /// of files are deleted. In both cases the command asks first if it runs on a terminal; `--yes` answers.
    LeaveGroup {
        /// Group name
        group_id: String,
        /// Leave without being asked
        #[arg(long, short)]
        yes: bool,
    },
    /// List all groups
    ListGroups,
    /// List requests to join your group
    ListRequests(GroupArgs),
    /// Accept a request to join your group
    AcceptRequest(MemberArgs),
    /// Reject a request to join your group
    RejectRequest(MemberArgs),
    /// Remove a member from your group
    ///
    /// Peers stop serving that user when the user's ticket expires, within 10 minutes.
    RemoveMember(MemberArgs),
    /// Remove a file from a group's list and free its name
    RemoveFile(FileArgs),
    /// Share a file with a group
    ///
    /// Hashes the file, lists it in the group, and serves it to the members. `upload_file FILE GROUP` works too if only that order
    /// makes sense. `--as NAME` lists it under another name than its own.
    ///
    /// With a running node (`client serve` or a prompt) the command ends as soon as that node serves the file. Without one the
    /// command itself is the node, and shares until Ctrl-C.
    #[command(alias = "put")]
    UploadFile {
        /// Group name
        group_id: OsString,
        /// File to share
        file_path: PathBuf,
        /// Name in the group
        #[arg(long = "as", value_name = "NAME")]
        listed_name: Option<String>,
    },
    /// Download a file from all peers that have any part of it
    ///
    /// Ends when the file is on disk under its own name, verified and synced. Until then its data is beside it in a file that
    /// ends in `.part`. The same command given again resumes where an earlier one stopped.
    ///
    /// Downloaded pieces are shared at the same time, and by a running node (`client serve` or a prompt) afterwards.
    /// `--overwrite` replaces a file that differs; `--wait SECONDS` limits how long the download may make no progress.
    #[command(alias = "get")]
    DownloadFile {
        #[command(flatten)]
        file: FileArgs,
        /// Directory or new file name; with a final `/` always a directory, which must exist. Default: the current directory
        #[arg(default_value = ".", hide_default_value = true)]
        destination_path: PathBuf,
    },
    /// List the files of a group
    #[command(alias = "ls")]
    ListFiles(GroupArgs),
    /// Stop sharing a file from this node
    StopShare(FileArgs),
    /// List this node's downloads
    ShowDownloads,
    /// Pause a download
    Pause(FileArgs),
    /// Continue a paused download
    Resume(FileArgs),
    /// Cancel a download and remove its partial file
    Cancel(FileArgs),
    /// List the peers that have a file
    GetPeers(FileArgs),
    /// Show who is logged in
    Whoami,
    /// Show whether a node runs here, and its state
    Status,
    /// Check this machine and the trackers, and suggest fixes
    Doctor,
    /// Run the node without a prompt, as a service
    ///
    /// Listens for peers, continues earlier shares and downloads, and serves other commands until SIGTERM, Ctrl-C or
    /// `client quit`. The node's options are those whose help begins with `Node:`.
    Serve,
    /// Leave the prompt; on the command line: stop the running node
    #[command(alias = "exit")]
    Quit,
}

// No doc comments on the following types: clap would take them for the help of each command that uses the type.

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct GroupArgs {
    /// Group name
    pub(crate) group_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct MemberArgs {
    /// Group name
    pub(crate) group_id: String,
    /// User name
    pub(crate) user_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct FileArgs {
    /// Group name
    pub(crate) group_id: String,
    /// File name in the group
    pub(crate) file_name: String,
}
