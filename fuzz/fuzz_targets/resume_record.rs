//! Fuzzes the record beside a partial file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("resume_record", bytes);
});
