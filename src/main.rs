//! The `portolan` program: parses its flags, runs one command, tells how it ended.

use std::process::ExitCode;

use clap::Parser;
use portolan::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            // As sysexits.h has it: a command or a configuration that cannot be used.
            ExitCode::from(64)
        }
    }
}
