//! Fuzzes the manifest beside a share's record.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("manifest", bytes);
});
