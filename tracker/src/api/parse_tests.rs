//! Tests of requests: the protocol's examples, round trips, and refusals that name their field.

use proptest::prelude::*;
use serde_json::json;

use super::super::limits::PIECES_PER_MESSAGE;
use super::*;

fn parse(value: &Value) -> Result<Request, RequestFailure> {
    Request::parse(value.to_string().as_bytes()).map_err(|bad| bad.failure)
}

fn hex(byte: u8) -> String {
    Digest([byte; 20]).to_string()
}

fn sample_file() -> GroupFile {
    GroupFile { group: GroupId::new("group1").unwrap(), name: FileName::new("document.pdf").unwrap() }
}

#[test]
fn the_examples_of_the_protocol_are_read() {
    let login = r#"{"command":"login","command_args":{"user_id":"alice","passwd":"password123"},"sender_ip":"127.0.0.1","sender_port":"5000"}"#;
    let request = Request::parse(login.as_bytes()).unwrap();
    assert_eq!(request.sender, Some(ClaimedAddress { ip: Some("127.0.0.1".parse().unwrap()), port: 5_000 }));
    let Command::Login { user, password, peer_key: None } = request.command else { panic!("not a login") };
    assert_eq!((user.as_str(), password.reveal()), ("alice", "password123"));

    let upload = json!({"command":"upload_file","command_args":{"group_id":"group1","file_name":"document.pdf"},
        "piecewise_sha":[hex(1), hex(2).to_uppercase()],"fileSha":hex(3),"sender_ip":"127.0.0.1","sender_port":"5000"});
    let Command::UploadFile { group, manifest, .. } = parse(&upload).unwrap().command else {
        panic!("not an upload")
    };
    assert_eq!((group.as_str(), manifest.name().as_str()), ("group1", "document.pdf"));
    assert_eq!(manifest.digests().to_vec(), [Digest([1; 20]), Digest([2; 20])]);
    assert_eq!(manifest.proof(), FileProof::Whole(Digest([3; 20])));
    assert!(!manifest.is_length_known());

    let download = r#"{"command":"download_file","command_args":{"group_id":"group1","file_name":"document.pdf"},"sender_ip":"127.0.0.1","sender_port":"5000"}"#;
    let wanted = Command::DownloadFile {
        file: sample_file(),
        content: None,
        view: DownloadView::Classic,
        part: PiecePage::WHOLE,
        peer_key: None,
    };
    assert_eq!(Request::parse(download.as_bytes()).unwrap().command, wanted);
}

#[test]
fn the_forms_of_the_original_client_are_read() {
    let pieces = [hex(1), hex(2)];
    let upload = json!({"command":"upload_file","command_args":{"group_id":"g","file_path":"/home/alice/my film.mkv"},
        "piecewise_sha":pieces,"fileSha":pieces.concat(),"sender_ip":"[::1]","sender_port":5000});
    let request = parse(&upload).unwrap();
    let Command::UploadFile { manifest, .. } = request.command else { panic!("not an upload") };
    assert_eq!(manifest.name().as_str(), "my film.mkv");
    assert_eq!(manifest.proof(), FileProof::of_pieces(manifest.digests().iter()));
    assert_eq!(request.sender.unwrap().ip, Some("::1".parse().unwrap()));
    let confirm =
        json!({"command":"download_confirm","command_args":{"group_id":"group1","file_name":"document.pdf"}});
    let wanted = Command::UpdatePieces { file: sample_file(), content: None, gained: GainedPieces::Complete };
    assert_eq!(parse(&confirm).unwrap().command, wanted);
    let silent =
        json!({"command":"ping","sender_ip":"","sender_port":"","unknown":{"a":[1]},"command_args":null});
    assert_eq!(parse(&silent).unwrap(), Request::new(Command::Ping));
}

/// Each row: a change to a valid upload, and the name in its refusal.
#[test]
fn a_refusal_names_its_field() {
    let good = json!({"command":"upload_file","command_args":{"group_id":"g","file_name":"f","file_size":600_000},
        "piecewise_sha":[hex(1),hex(2)],"fileSha":hex(3),"file_chain":[hex(4)],"sender_port":"5000"});
    assert!(parse(&good).is_ok());
    let rows = [
        ("/command_args", json!("group"), "command_args"),
        ("/command_args", json!([1]), "command_args"),
        ("/command_args/group_id", json!(null), "group_id"),
        ("/command_args/group_id", json!("a b"), "group_id"),
        ("/command_args/group_id", json!(7), "group_id"),
        ("/command_args/file_name", json!("../etc"), "file_name"),
        ("/command_args/file_size", json!(-1), "file_size"),
        ("/command_args/file_size", json!(1.5), "file_size"),
        ("/command_args/file_size", json!(600_000_000), "piecewise_sha"),
        ("/piecewise_sha", json!([hex(1), 2]), "piecewise_sha: element 1"),
        ("/piecewise_sha", json!([hex(1), "zz"]), "piecewise_sha: element 1"),
        ("/piecewise_sha", json!("AAAA"), "piecewise_sha"),
        ("/piecewise_sha", json!({}), "piecewise_sha"),
        ("/fileSha", json!("abc"), "fileSha"),
        ("/fileSha", json!(format!("{}{}", hex(1), hex(9))), "fileSha"),
        ("/file_chain", json!([hex(4), hex(4)]), "chain"),
        ("/sender_port", json!("0"), "sender_port"),
        ("/sender_port", json!(70_000), "sender_port"),
        ("/command", json!(["login"]), "command"),
    ];
    for (path, value, named) in rows {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value.clone();
        let failure = parse(&bad).unwrap_err();
        assert_eq!(failure.code, FailureCode::BadRequest, "{path} = {value}");
        assert!(failure.message.contains(named), "{path} = {value} gave {:?}", failure.message);
    }
}

#[test]
fn refusals_have_the_right_code_and_echo_the_id() {
    let code = |text: &str| Request::parse(text.as_bytes()).unwrap_err();
    assert_eq!(code("{\"command\":}").failure.code, FailureCode::Syntax);
    assert_eq!(code("{\"command\":\"ping\"]").failure.code, FailureCode::Syntax);
    let unknown = code(r#"{"command":"fly","request_id":7}"#);
    assert_eq!((unknown.failure.code, unknown.request_id), (FailureCode::UnknownCommand, Some(json!(7))));
    assert_eq!(code(r#"{"command":"ping","request_id":{}}"#).failure.code, FailureCode::BadRequest);
    assert_eq!(code(r#"{"request_id":"x"}"#).request_id, Some(json!("x")));
    let many = json!({"command":"upload_file","command_args":{"group_id":"g","file_name":"f"},"fileSha":hex(1),
        "piecewise_sha":vec![hex(1); PIECES_PER_MESSAGE + 1]});
    assert_eq!(parse(&many).unwrap_err().code, FailureCode::TooLarge);
}

#[test]
fn a_command_that_does_not_parse_is_refused_with_the_text_of_its_field() {
    let read = |text: &str| serde_json::from_str::<Command>(text).unwrap_err().to_string();
    assert!(read(r#"{"command":"join_group","command_args":{"group_id":"a b"}}"#).starts_with("group_id: "));
    assert!(read(r#"{"command":"join_group","command_args":7}"#).starts_with("command_args: "));
    assert!(read(r#"{"command":"fly"}"#).contains("there is no command"));
}

#[test]
fn passwords_are_not_shown() {
    let request =
        parse(&json!({"command":"login","command_args":{"user_id":"a","passwd":"secret"}})).unwrap();
    assert!(!format!("{request:?}").contains("secret"));
    let long =
        json!({"command":"login","command_args":{"user_id":"a","passwd":"x".repeat(PASSWORD_MAX_BYTES + 1)}});
    assert!(parse(&long).unwrap_err().message.starts_with("passwd"));
}

fn any_id() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(b"azAZ09_.-".to_vec()), 1..64)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

fn any_key() -> impl Strategy<Value = Option<PeerKey>> {
    proptest::option::of(any::<[u8; 32]>().prop_map(PeerKey))
}

fn any_file() -> impl Strategy<Value = GroupFile> {
    (any_id(), "[a-zäß €.]{1,20}x").prop_map(|(group, name)| GroupFile {
        group: GroupId::new(&group).unwrap(),
        name: FileName::new(&name).unwrap(),
    })
}

fn any_upload() -> impl Strategy<Value = Command> {
    let digests = proptest::collection::vec(any::<[u8; 20]>().prop_map(Digest), 0..100);
    (any_file(), digests, any::<bool>(), any::<bool>(), any::<bool>(), any_key()).prop_map(
        |(file, digests, sized, whole, chained, peer_key)| {
            let proof = match digests.as_slice() {
                [] => FileProof::Whole(engine::proto::manifest::EMPTY_DIGEST),
                [only] => FileProof::Whole(*only),
                _ if whole => FileProof::Whole(Digest([9; 20])),
                several => FileProof::of_pieces(several),
            };
            let chain = chained.then(|| vec![ChainState([7; 20]); digests.len().saturating_sub(1)]);
            let length = sized.then(|| digests.len() as u64 * 524_288);
            let manifest = Manifest::new(file.name, length, digests, proof, chain).unwrap();
            Command::UploadFile { group: file.group, manifest: Box::new(manifest), peer_key }
        },
    )
}

/// A file, and perhaps the content that is meant.
fn any_named() -> impl Strategy<Value = (GroupFile, Option<Digest>)> {
    (any_file(), proptest::option::of(any::<[u8; 20]>().prop_map(Digest)))
}

fn any_range() -> impl Strategy<Value = PieceRange> {
    any::<(u32, u32)>()
        .prop_map(|(a, b)| PieceRange::new(PieceIndex(a.min(b)), PieceIndex(a.max(b))).unwrap())
}

fn any_page<N: std::fmt::Debug>(name: impl Strategy<Value = N>) -> impl Strategy<Value = ListPage<N>> {
    (proptest::option::of(name), any::<Option<u32>>()).prop_map(|(after, count)| ListPage { after, count })
}

fn any_command() -> impl Strategy<Value = Command> {
    let password = || "[ -~äö]{1,40}".prop_map(|text| Password::new(&text).unwrap());
    let user = || any_id().prop_map(|id| UserId::new(&id).unwrap());
    let group = || any_id().prop_map(|id| GroupId::new(&id).unwrap());
    let gained = prop_oneof![
        Just(GainedPieces::Complete),
        proptest::collection::vec(any_range(), 0..20).prop_map(GainedPieces::Ranges),
    ];
    prop_oneof![
        (user(), password()).prop_map(|(user, password)| Command::CreateUser { user, password }),
        (user(), password(), any_key()).prop_map(|(user, password, peer_key)| Command::Login {
            user,
            password,
            peer_key
        }),
        (group(), any::<bool>()).prop_map(|(group, open)| Command::CreateGroup {
            group,
            policy: if open { Policy::Open } else { Policy::Approval },
        }),
        (group(), user()).prop_map(|(group, user)| Command::AcceptRequest { group, user }),
        (group(), user()).prop_map(|(group, user)| Command::RejectRequest { group, user }),
        (group(), user()).prop_map(|(group, user)| Command::RemoveMember { group, user }),
        group().prop_map(|group| Command::JoinGroup { group }),
        (group(), any_page(user())).prop_map(|(group, page)| Command::ListRequests { group, page }),
        any_page(group()).prop_map(|page| Command::ListGroups { page }),
        group().prop_map(|group| Command::LeaveGroup { group }),
        any_upload(),
        (any_named(), any::<bool>(), any::<u32>(), proptest::option::of(1..u32::MAX), any_key()).prop_map(
            |((file, content), compact, first, count, peer_key)| Command::DownloadFile {
                file,
                content,
                view: if compact { DownloadView::Compact } else { DownloadView::Classic },
                part: PiecePage { first: PieceIndex(first), count: count.map(PieceCount) },
                peer_key,
            }
        ),
        (group(), any_page(any_file().prop_map(|file| file.name)))
            .prop_map(|(group, page)| Command::ListFiles { group, page }),
        any_named().prop_map(|(file, content)| Command::StopShare { file, content }),
        any_file().prop_map(|file| Command::RemoveFile { file }),
        (any_named(), gained).prop_map(|((file, content), gained)| Command::UpdatePieces {
            file,
            content,
            gained
        }),
        (any_named(), any_key()).prop_map(|((file, content), peer_key)| Command::GetPeers {
            file,
            content,
            peer_key
        }),
        (any_named(), any::<std::net::IpAddr>(), 1..u16::MAX, "[ -~]{0,40}").prop_map(
            |((file, content), ip, port, reason)| {
                let peer = SocketAddr::new(ip.to_canonical(), port);
                Command::ReportPeer { file, content, peer, reason }
            }
        ),
        (password(), password()).prop_map(|(old, new)| Command::ChangePassword { old, new }),
        proptest::sample::select(vec![
            Command::Logout,
            Command::Ping,
            Command::GoOffline,
            Command::Status,
            Command::Whoami
        ]),
    ]
}

proptest! {
    #[test]
    fn what_is_rendered_is_read_back(
        command in any_command(),
        id in proptest::option::of(prop_oneof![any::<i64>().prop_map(Value::from), "[ -~]{0,30}".prop_map(Value::from)]),
        session in proptest::option::of("[A-Za-z0-9]{1,40}"),
        sender in proptest::option::of((any::<Option<std::net::IpAddr>>(), 1..u16::MAX)),
    ) {
        let sender = sender.map(|(ip, port)| ClaimedAddress { ip: ip.map(|ip| ip.to_canonical()), port });
        let request = Request { command, request_id: id, session, sender };
        prop_assert_eq!(Request::parse(&request.to_json()), Ok(request.clone()));
        let alone = serde_json::to_vec(&request.command).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Command>(&alone).unwrap(), request.command);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", cut in 0_usize..200) {
        let _ = Request::parse(text.as_bytes());
        let good = Request::new(Command::UpdatePieces { file: sample_file(), content: None, gained: GainedPieces::Ranges(vec![]) }).to_json();
        prop_assert!(cut >= good.len() || Request::parse(&good[..cut]).is_err());
    }
}
