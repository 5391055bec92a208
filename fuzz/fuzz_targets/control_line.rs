//! Fuzzes the control protocol in both forms: requests of clients and answers of trackers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("control_line", bytes);
});
