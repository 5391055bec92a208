//! The `client` program. Everything is in the library, so that fuzz targets and tests reach its parsers.

use std::process::ExitCode;

fn main() -> ExitCode {
    client::run()
}
