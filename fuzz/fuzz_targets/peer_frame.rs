//! Fuzzes frames of the peer protocol.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    client::fuzzing::run_target("peer_frame", bytes);
});
