//! The `portolan` program: parses its flags, runs one command, tells how it ended.

use std::process::ExitCode;

use clap::Parser;
use portolan::cli::{self, Cli};
use portolan::telemetry;

/// A request makes some hundred small allocations on one thread and frees them there or on
/// another, which this allocator does in far fewer instructions than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ended = cli::run(Cli::parse());
    telemetry::flush();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            cli::complain(&error);
            // As sysexits.h has it: a command or a configuration that cannot be used.
            ExitCode::from(64)
        }
    }
}
