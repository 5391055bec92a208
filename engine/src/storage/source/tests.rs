//! Sources that change in every way that files do, while they are watched, hashed and served, mapped and read.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::AtomicBool;

use super::super::file_bytes::FileReader;
use super::*;

const FILE_BYTES: usize = 300_000;

struct Fixture {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source.bin");
    std::fs::write(&path, vec![7u8; FILE_BYTES]).unwrap();
    Fixture { directory, path }
}

/// The source as it is where the system refuses to map the file.
fn unmapped(mut source: Source) -> Source {
    source.bytes = FileBytes::Read(Box::new(FileReader::new(Arc::clone(&source.file))));
    source
}

/// Opens a source that is read.
pub(in crate::storage) fn open_unmapped(path: &Path) -> Source {
    unmapped(Source::open(path).unwrap())
}

/// Opens a source in both ways.
const OPENS: [fn(&Path) -> Source; 2] = [|path| Source::open(path).unwrap(), open_unmapped];

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

#[test]
fn a_source_lends_its_bytes() {
    for open in OPENS {
        let fixture = fixture();
        let source = open(&fixture.path);
        source.advise_sequential();
        assert_eq!(source.length(), FILE_BYTES as u64);
        assert_eq!(source.with_bytes(100..200, sum), Ok(700));
        assert_eq!(source.window(100..300).load().unwrap().len(), 200);
        assert_eq!(source.window(100..300).into_part().unwrap().len(), 200);
        assert_eq!(source.fingerprint(), Some(Fingerprint::at(&fixture.path).unwrap()));
        assert_eq!(source.check(0), Ok(()));
    }
}

#[test]
fn a_file_in_order_is_read_ahead_and_in_any_order_too() {
    let fixture = fixture();
    let content = [vec![1; 150_000], vec![2; 150_000]].concat();
    std::fs::write(&fixture.path, &content).unwrap();
    let (first, second) = (0..150_000, 150_000..FILE_BYTES as u64);
    for open in OPENS {
        let source = open(&fixture.path);
        let bytes = |range: &Range<u64>| source.with_bytes(range.clone(), <[u8]>::to_vec).unwrap();
        for (next, asked) in [(&first, &first), (&second, &second), (&first, &second), (&second, &first)] {
            source.read_ahead(next.clone());
            let expected = if *asked == first { &content[..150_000] } else { &content[150_000..] };
            assert_eq!(bytes(asked), expected);
        }
    }
}

#[test]
fn a_read_source_that_became_shorter_is_noticed_by_its_length() {
    let fixture = fixture();
    let least = Arc::new(AtomicU64::new(0));
    let file = File::open(&fixture.path).unwrap();
    // Its writer guarantees no length, so only the read itself can notice.
    let open = || {
        Source::over_partial(
            file.try_clone().unwrap(),
            fixture.path.clone(),
            FILE_BYTES as u64,
            Arc::clone(&least),
        )
    };
    let source = unmapped(open().unwrap());
    OpenOptions::new().write(true).open(&fixture.path).unwrap().set_len(50).unwrap();
    let error = source.window(40..60).load().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(source.mark_unreadable(&error).change, SourceChange::Truncated);
    let source = unmapped(open().unwrap());
    assert_eq!(source.with_bytes(40..60, sum).unwrap_err().change, SourceChange::Truncated);
    assert!(source.with_bytes(0..10, sum).is_err(), "forgotten");
}

#[test]
fn an_empty_file_is_a_valid_source() {
    let fixture = fixture();
    std::fs::write(&fixture.path, b"").unwrap();
    let source = Source::open(&fixture.path).unwrap();
    assert_eq!((source.length(), source.check_now()), (0, Ok(())));
}

fn refusal(path: &Path) -> StorageErrorKind {
    Source::open(path).unwrap_err().kind
}

#[test]
fn non_regular_files_are_refused_by_kind() {
    let fixture = fixture();
    let fifo = fixture.directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(matches!(refusal(&fifo), StorageErrorKind::NotAFile("a fifo")));
    assert!(matches!(refusal(fixture.directory.path()), StorageErrorKind::NotAFile("a directory")));
    assert!(matches!(refusal(Path::new("/dev/null")), StorageErrorKind::NotAFile("a device")));
    assert!(matches!(refusal(&fixture.path.with_extension("no")), StorageErrorKind::Missing));
}

#[test]
fn each_kind_of_change_is_reported_and_permanent() {
    let write = |path: &Path| std::fs::write(path, vec![8u8; FILE_BYTES]).unwrap();
    let grow = |path: &Path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(5).unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let replace = |path: &Path| {
        let other = path.with_extension("other");
        std::fs::write(&other, vec![7u8; FILE_BYTES]).unwrap();
        std::fs::rename(&other, path).unwrap();
    };
    type Act = fn(&Path);
    let cases: [(Act, SourceChange); 5] = [
        (write, SourceChange::Modified),
        (grow, SourceChange::Modified),
        (cut, SourceChange::Truncated),
        (remove, SourceChange::Removed),
        (replace, SourceChange::Replaced),
    ];
    for ((act, expected), open) in cases.into_iter().flat_map(|case| OPENS.map(|open| (case, open))) {
        let fixture = fixture();
        // Set the first modification time far back, for filesystems with coarse times.
        let old = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        File::options().write(true).open(&fixture.path).unwrap().set_times(old).unwrap();
        let source = open(&fixture.path);
        source.check_now().unwrap();
        act(&fixture.path);
        assert_eq!(source.check_now().unwrap_err().change, expected);
        assert_eq!(source.check(0).unwrap_err().change, expected, "forgotten");
        assert!(source.with_bytes(0..1, sum).is_err(), "{expected:?}");
    }
}

#[test]
fn checks_are_rate_limited() {
    let fixture = fixture();
    let source = Source::open(&fixture.path).unwrap();
    assert_eq!(source.check(5_000), Ok(()));
    std::fs::remove_file(&fixture.path).unwrap();
    assert_eq!(source.check(5_000 + SOURCE_CHECK_MS - 1), Ok(()), "the file was examined too early");
    assert_eq!(source.check(5_000 + SOURCE_CHECK_MS).unwrap_err().change, SourceChange::Removed);
}

#[test]
fn truncation_while_hashing_discards_the_hash() {
    for open in OPENS {
        let fixture = fixture();
        let source = open(&fixture.path);
        let ran_through = AtomicBool::new(false);
        let result = source.with_bytes(0..FILE_BYTES as u64, |bytes| {
            OpenOptions::new().write(true).open(&fixture.path).unwrap().set_len(1).unwrap();
            let sum = sum(bytes);
            ran_through.store(true, Ordering::Relaxed);
            sum
        });
        assert_eq!(
            result,
            Err(SourceChangedError { path: fixture.path.clone(), change: SourceChange::Truncated })
        );
        assert!(ran_through.into_inner(), "the read did not return");
        // The change is permanent, even when the bytes come back.
        std::fs::write(&fixture.path, vec![7u8; FILE_BYTES]).unwrap();
        assert!(source.check_now().is_err());
    }
}

#[test]
fn a_failed_send_marks_the_source() {
    let fixture = fixture();
    let source = Source::open(&fixture.path).unwrap();
    let lost_page = io::Error::from_raw_os_error(libc::EFAULT);
    assert_eq!(source.mark_unreadable(&lost_page).change, SourceChange::Truncated);
    assert!(source.check(0).is_err());
    let source = Source::open(&fixture.path).unwrap();
    let failed = io::Error::from_raw_os_error(libc::EIO);
    assert_eq!(source.mark_unreadable(&failed).change, SourceChange::Unreadable);
}

#[test]
fn a_partial_file_may_change_but_not_shrink() {
    for wrap in [|source| source, unmapped] {
        assert_partial_may_change(wrap);
    }
}

fn assert_partial_may_change(wrap: fn(Source) -> Source) {
    let fixture = fixture();
    let file = OpenOptions::new().read(true).write(true).open(&fixture.path).unwrap();
    let least = Arc::new(AtomicU64::new(FILE_BYTES as u64));
    let read = file.try_clone().unwrap();
    let source =
        Source::over_partial(read, fixture.path.clone(), 1 << 20, Arc::clone(&least)).map(wrap).unwrap();
    std::fs::write(&fixture.path, vec![1u8; FILE_BYTES]).unwrap();
    assert_eq!(source.with_bytes(0..10, sum), Ok(10));
    std::fs::rename(&fixture.path, fixture.path.with_extension("done")).unwrap();
    assert_eq!(source.check_now(), Ok(()));
    least.store(100, Ordering::Release);
    file.set_len(100).unwrap();
    assert_eq!(source.check_now(), Ok(()), "its writer truncated it");
    file.set_len(99).unwrap();
    assert_eq!(source.check_now().unwrap_err().change, SourceChange::Truncated);
}
