//! Fuzzes tickets, which peers present to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("ticket", bytes);
});
