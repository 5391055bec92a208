//! Fuzzes the record of a share in a node's state directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("share_record", bytes);
});
