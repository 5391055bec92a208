//! Read-only queries of the replicated state. Lists are in the order of names, and come in pages where asked.
//!
//! Invariant: when a read of a table fails, a query returns fewer rows and does not panic. The caller checks afterwards
//! whether every read succeeded.

use engine::proto::manifest::{FileName, FileProof};
use engine::proto::units::{Digest, PieceCount};

use super::access::VerifiedActor;
use super::command::{LogCommand, ManifestPart, Policy};
use super::id::{Actor, GroupFile, GroupId, SessionId, UserId};
use super::leases::ListedContent;
use super::node::{NodeEndpoint, SwarmPeer};
use super::outcome::ApplyResult;
use super::row_key::{self, RowKey};
use super::rows::{self, FileRow, GroupRow, JoinRequestRow, MemberRow, NodeRow, SessionRow, UploadRow};
use super::tables::{Table, Tables};
use super::{access, binding, manifest, retry, session};

pub use super::manifest::ManifestPieces;
pub use super::rows::UserRow;

/// Queries over one set of tables.
#[derive(Clone, Copy)]
pub struct StateQueries<'a> {
    tables: &'a dyn Tables,
}

/// A valid session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The session's user.
    pub user: UserId,
    /// Epoch of the password at login.
    pub password_epoch: u32,
    /// When it expires, in seconds since the Unix epoch.
    pub expires_s: u64,
    /// The node that logged in or reconnected last.
    pub node: Option<NodeEndpoint>,
    /// Number of files that this node shares.
    pub shares: u64,
}

impl SessionView {
    /// Whether the session has not expired at a time, in seconds since the Unix epoch.
    #[must_use]
    pub fn holds_at(&self, at_s: u64) -> bool {
        at_s < self.expires_s
    }
}

/// What a user may know about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoamiView {
    /// Name of the user.
    pub user: UserId,
    /// When the user was created, in seconds since the Unix epoch.
    pub created_s: u64,
    /// Number of the user's valid sessions.
    pub sessions: usize,
}

/// A group as one user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Name of the group.
    pub group: GroupId,
    /// Owner of the group.
    pub owner: UserId,
    /// How users join.
    pub policy: Policy,
    /// Number of members.
    pub members: u64,
    /// Whether the asking user is a member.
    pub is_member: bool,
    /// When the group was created, in seconds since the Unix epoch.
    pub created_s: u64,
}

/// A file without its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// Name of the file.
    pub name: FileName,
    /// The user who uploaded it first.
    pub uploader: UserId,
    /// When it was uploaded, in seconds since the Unix epoch.
    pub uploaded_s: u64,
    /// Length in bytes, if the uploader gave it.
    pub length: Option<u64>,
    /// Number of pieces.
    pub pieces: u32,
    /// What proves the whole file.
    pub proof: FileProof,
    /// Whether its chain is known.
    pub has_chain: bool,
    /// Fold of its piece digests.
    pub fold: [u8; 32],
}

impl FileView {
    /// The content that is listed.
    #[must_use]
    pub fn content(&self) -> ListedContent {
        ListedContent { id: self.proof.id(), fold: self.fold, pieces: PieceCount(self.pieces) }
    }

    /// Whether these are the digests of all its pieces.
    #[must_use]
    pub fn has_digests(&self, digests: &[Digest]) -> bool {
        let parts = ManifestPart::split(digests, None);
        digests.len() == self.pieces as usize
            && parts.iter().fold(manifest::EMPTY_FOLD, manifest::fold_part) == self.fold
    }
}

impl<'a> StateQueries<'a> {
    /// Queries over these tables.
    #[must_use]
    pub fn new(tables: &'a dyn Tables) -> StateQueries<'a> {
        StateQueries { tables }
    }

    /// The account of a user, for checking a password.
    #[must_use]
    pub fn account(&self, user: &UserId) -> Option<UserRow> {
        rows::read_row(self.tables, &RowKey::user(user))
    }

    /// The first outcome of a command that was applied before in the same session under the same request id.
    #[must_use]
    pub fn first_answer(&self, command: &LogCommand) -> Option<ApplyResult> {
        retry::first_answer(self.tables, command)
    }

    /// A session, if it is valid at `at_s`.
    #[must_use]
    pub fn session(&self, session: SessionId, at_s: u64) -> Option<SessionView> {
        let row = self.valid_session(session, at_s)?;
        let node_key = row.node.map(|node| binding::node_key(self.tables, &row.user, node, session));
        let node: Option<NodeRow> = node_key.and_then(|key| rows::read_row(self.tables, &key));
        Some(SessionView {
            shares: node.map_or(0, |node| node.shares),
            user: row.user,
            password_epoch: row.password_epoch,
            expires_s: row.expires_s,
            node: row.node,
        })
    }

    fn valid_session(&self, session: SessionId, at_s: u64) -> Option<SessionRow> {
        rows::read_row::<SessionRow>(self.tables, &RowKey::session(session)).filter(|row| row.holds_at(at_s))
    }

    /// What an actor may know about its user; `None` when the session is not valid at `at_s`.
    #[must_use]
    pub fn whoami(&self, actor: &Actor, at_s: u64) -> Option<WhoamiView> {
        VerifiedActor::find(self.tables, actor, at_s).ok()?;
        let account = self.account(&actor.user)?;
        let sessions = session::sessions_of_user(self.tables, &actor.user);
        let is_valid = |session: &SessionId| self.valid_session(*session, at_s).is_some();
        let sessions = sessions.into_iter().filter(is_valid).count();
        Some(WhoamiView { user: actor.user.clone(), created_s: account.created_s, sessions })
    }

    /// When the first session expires, in seconds since the Unix epoch; `u64::MAX` without sessions.
    #[must_use]
    pub fn next_session_expiry_s(&self) -> u64 {
        let mut next_s = u64::MAX;
        rows::visit_rows::<SessionRow>(self.tables, &[], |_, row| next_s = next_s.min(row.expires_s));
        next_s
    }

    /// When the first unfinished upload expires, in seconds since the Unix epoch; `u64::MAX` without uploads.
    #[must_use]
    pub fn next_upload_expiry_s(&self) -> u64 {
        let mut next_s = u64::MAX;
        rows::visit_rows::<UploadRow>(self.tables, &[], |_, row| next_s = next_s.min(row.expires_s()));
        next_s
    }

    /// Whether a user is a member of a group.
    #[must_use]
    pub fn is_member(&self, group: &GroupId, user: &UserId) -> bool {
        access::is_member(self.tables, group, user)
    }

    /// A group as `user` sees it.
    #[must_use]
    pub fn group(&self, group: &GroupId, user: &UserId) -> Option<GroupView> {
        let row: GroupRow = rows::read_row(self.tables, &RowKey::group(group))?;
        Some(self.group_view(group.clone(), row, user))
    }

    /// At most `count` groups after the one named `after`, as `user` sees them.
    #[must_use]
    pub fn groups(&self, user: &UserId, after: Option<&GroupId>, count: usize) -> Vec<GroupView> {
        let mut found = Vec::new();
        rows::visit_page::<GroupRow>(
            self.tables,
            &[],
            after.map(RowKey::group).as_ref(),
            count,
            |key, row| {
                found.push((row_key::group_id(key), row));
            },
        );
        found.into_iter().map(|(group, row)| self.group_view(group, row, user)).collect()
    }

    /// Members of a group, in the order of names.
    #[must_use]
    pub fn members(&self, group: &GroupId) -> Vec<UserId> {
        let mut members = Vec::new();
        rows::visit_rows::<MemberRow>(self.tables, &RowKey::group(group).prefix(), |rest, _| {
            members.push(row_key::user_id(rest));
        });
        members
    }

    /// At most `count` users who asked to join a group, after the one named `after`. Only the owner may know them: the caller
    /// compares [`GroupView::owner`].
    #[must_use]
    pub fn requests(&self, group: &GroupId, after: Option<&UserId>, count: usize) -> Vec<UserId> {
        let after = after.map(|user| RowKey::member(group, user));
        let mut users = Vec::new();
        let prefix = RowKey::group(group).prefix();
        rows::visit_page::<JoinRequestRow>(self.tables, &prefix, after.as_ref(), count, |rest, _| {
            users.push(row_key::user_id(rest));
        });
        users
    }

    /// At most `count` files of a group, after the one named `after`.
    #[must_use]
    pub fn files(&self, group: &GroupId, after: Option<&FileName>, count: usize) -> Vec<FileView> {
        let after = after.map(|name| RowKey::file(&GroupFile { group: group.clone(), name: name.clone() }));
        let mut files = Vec::new();
        rows::visit_page::<FileRow>(
            self.tables,
            &RowKey::group(group).prefix(),
            after.as_ref(),
            count,
            |rest, row| {
                files.push(file_view(row_key::file_name(rest), row));
            },
        );
        files
    }

    /// A file without its pieces.
    #[must_use]
    pub fn file(&self, file: &GroupFile) -> Option<FileView> {
        rows::read_row(self.tables, &RowKey::file(file)).map(|row| file_view(file.name.clone(), row))
    }

    /// Digests and chain of up to `count` pieces from `first`. The chain has no state after the file's last piece.
    #[must_use]
    pub fn pieces(&self, file: &GroupFile, first: u32, count: u32) -> Option<ManifestPieces> {
        let row: FileRow = rows::read_row(self.tables, &RowKey::file(file))?;
        manifest::read_pieces(self.tables, &row, first, count)
    }

    /// Nodes that share a file and have not logged out. The leases know which of them are online.
    #[must_use]
    pub fn seeders(&self, file: &GroupFile) -> Vec<SwarmPeer> {
        let prefix = RowKey::file(file).prefix();
        let nodes = rows::collect_keys(self.tables, Table::Shares, &prefix);
        let nodes = nodes.iter().map(|share| RowKey(share.0[prefix.len()..].to_vec()));
        let peer = |node: RowKey| {
            let row: NodeRow = rows::read_row(self.tables, &node)?;
            let user = row_key::user_of_node(&node);
            (!row.logged_out).then_some(SwarmPeer { user, holder: row.holder, session: row.session })
        };
        nodes.filter_map(peer).collect()
    }

    fn group_view(&self, group: GroupId, row: GroupRow, user: &UserId) -> GroupView {
        let is_member = self.is_member(&group, user);
        GroupView {
            group,
            owner: row.owner,
            policy: row.policy,
            members: row.members,
            is_member,
            created_s: row.created_s,
        }
    }
}

fn file_view(name: FileName, row: FileRow) -> FileView {
    FileView {
        name,
        uploader: row.uploader,
        uploaded_s: row.uploaded_s,
        length: row.length,
        pieces: row.pieces,
        proof: row.proof,
        has_chain: row.has_chain,
        fold: row.fold,
    }
}
