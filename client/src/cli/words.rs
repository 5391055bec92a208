//! The commands, the same words at the prompt and on the command line.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// How a group admits members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Whoever asks is a member at once.
    #[default]
    Open,
    /// The owner accepts each member.
    Approval,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum Words {
    /// Make a user; a password left out is asked for
    CreateUser {
        /// 1 to 64 letters, digits, `_`, `.` or `-`
        user_id: String,
        /// 1 to 1,024 bytes
        password: Option<String>,
    },
    /// Log in; a password left out is asked for
    Login {
        /// Who
        user_id: String,
        /// The password
        password: Option<String>,
    },
    /// Log out: this node's shares go offline
    Logout,
    /// Make a group, which is then yours
    CreateGroup {
        /// 1 to 64 letters, digits, `_`, `.` or `-`
        group_id: String,
        /// How it admits members
        #[arg(value_enum, default_value = "open")]
        policy: Policy,
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
    /// Turn somebody down
    RejectRequest {
        /// Which group
        group_id: String,
        /// Whom
        user_id: String,
    },
    /// Put a member out of your group
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
    UploadFile {
        /// Which group
        group_id: String,
        /// The file
        file_path: PathBuf,
    },
    /// Fetch a file from everybody who has any part of it
    DownloadFile {
        /// Which group
        group_id: String,
        /// Its name there
        file_name: String,
        /// A directory or a file name
        destination_path: PathBuf,
    },
    /// The files of a group
    ListFiles {
        /// Which group
        group_id: String,
    },
    /// Share a file no longer from this node
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
    /// Go on with a paused download
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
    /// Check what is needed, and say what to do about the rest
    Doctor,
    /// Be the node of this state directory, without a prompt
    Serve,
    /// Leave the prompt; on the command line: end the running node
    Quit,
}
