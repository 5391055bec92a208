//! Fuzzes the file of trackers, tracker_info.txt.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("tracker_file", bytes);
});
