//! Tests of answers: the protocol's example word for word, and round trips.

use engine::proto::manifest::FileName;
use engine::proto::ticket::{PeerKey, Ticket, TrackerKey};
use engine::proto::units::{ChainState, Digest};
use serde_json::json;

use super::*;
use crate::api::answers::{DownloadAnswer, FileEntry, FilesAnswer, LoginAnswer, PeerEntry, PeersAnswer};
use crate::api::chunks::{ChunkPeers, ClassicPeer};
use crate::api::hashes::{HashForm, HashList};

fn success(answer: CommandAnswer) -> Response {
    let result = Ok(CommandSuccess { message: "done".to_owned(), answer });
    Response { request_id: Some(json!("7")), epoch: 42, result }
}

fn peer(port: u16) -> ClassicPeer {
    ("127.0.0.1".to_owned(), port.to_string())
}

fn download(form: HashForm) -> DownloadAnswer {
    let digests = vec![Digest([0xAB; 20]), Digest([1; 20])];
    DownloadAnswer {
        file_path: FileName::new("document.pdf").unwrap(),
        chunk_metadata: Some(ChunkPeers {
            peers: vec![peer(5_001), peer(5_002)],
            chunks: digests.iter().map(|digest| (*digest, vec![0, 1])).collect(),
        }),
        file_chunks: HashList { form, values: digests },
        file_size: Some(600_000),
        file_sha: Some(Digest([2; 20]).to_string()),
        pieces_only: false,
        file_chain: Some(HashList { form, values: vec![ChainState([3; 20])] }),
        peers: None,
        ticket: Some(Ticket(vec![1, 2, 3])),
        server_time: 1_000,
        next: None,
    }
}

#[test]
fn a_download_is_answered_as_the_original_answers_it() {
    let response = success(CommandAnswer::Download(Box::new(download(HashForm::Hex))));
    let value: Value = serde_json::from_slice(&response.to_json()).unwrap();
    let (first, second) = ("ab".repeat(20), "01".repeat(20));
    assert_eq!(value["status"], "success");
    assert_eq!(value["file_path"], "document.pdf");
    assert_eq!(value["file_chunks"], json!([first, second]));
    assert_eq!(value["chunk_metadata"][&first], json!([["127.0.0.1", "5001"], ["127.0.0.1", "5002"]]));
    assert_eq!(value["request_id"], "7");
    assert_eq!(value["epoch"], 42);
    assert!(value.get("next").is_none() && value.get("pieces_only").is_none());
}

#[test]
fn what_is_written_is_read_back() {
    fn back<T: DeserializeOwned>(answer: CommandAnswer) -> T {
        let received = ReceivedAnswer::parse(&success(answer).to_json()).unwrap().unwrap();
        assert_eq!((received.epoch, received.message.as_str()), (42, "done"));
        received.answer().unwrap()
    }
    for form in [HashForm::Hex, HashForm::Base64] {
        let answer = download(form);
        assert_eq!(back::<DownloadAnswer>(CommandAnswer::Download(Box::new(answer.clone()))), answer);
    }
    let login = LoginAnswer { session: "s".into(), tracker_key: TrackerKey([4; 32]), server_time: 9 };
    assert_eq!(back::<LoginAnswer>(CommandAnswer::Login(login.clone())), login);
    let entry = |peer_key, complete| PeerEntry { ip: "::1".parse().unwrap(), port: 1, peer_key, complete };
    let peers = PeersAnswer {
        peers: vec![entry(None, false), entry(Some(PeerKey([5; 32])), true)],
        ticket: None,
        server_time: 9,
    };
    assert_eq!(back::<PeersAnswer>(CommandAnswer::Peers(peers.clone())), peers);
    let name = FileName::new("ä b").unwrap();
    let file = FileEntry {
        file_name: name.clone(),
        file_size: None,
        file_sha: Digest([1; 20]),
        pieces_only: true,
        seeders: 1,
        leechers: 2,
    };
    let files = FilesAnswer { files_list: vec![name], files: vec![file] };
    assert_eq!(back::<FilesAnswer>(CommandAnswer::Files(files.clone())), files);
}

#[test]
fn a_failure_keeps_its_code_and_its_fix() {
    let failure = RequestFailure::new(FailureCode::NotMember, "you are not a member of group g")
        .with_fix("join_group g");
    let response = Response { request_id: None, epoch: 1, result: Err(failure.clone()) };
    let text = String::from_utf8(response.to_json()).unwrap();
    assert!(text.contains("\"status\":\"failure\"") && text.contains("\"code\":\"not_member\""), "{text}");
    assert_eq!(ReceivedAnswer::parse(text.as_bytes()).unwrap().unwrap_err().failure, failure);
    let newer = text.replace("not_member", "a_word_of_the_future");
    let refused = ReceivedAnswer::parse(newer.as_bytes()).unwrap().unwrap_err();
    assert_eq!(refused.failure.code, FailureCode::Other);
}

#[test]
fn hostile_answers_are_refused() {
    let mut value: Value = serde_json::from_slice(
        &success(CommandAnswer::Download(Box::new(download(HashForm::Hex)))).to_json(),
    )
    .unwrap();
    value["file_path"] = json!("../../etc/passwd");
    let received = ReceivedAnswer::parse(value.to_string().as_bytes()).unwrap().unwrap();
    assert!(received.answer::<DownloadAnswer>().is_err());
    assert!(ReceivedAnswer::parse(b"{\"status\":\"maybe\"}").is_err());
    assert!(ReceivedAnswer::parse(b"[]").is_err());
}
