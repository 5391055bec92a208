//! Fuzzes the record of a download in a node's state directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("download_record", bytes);
});
