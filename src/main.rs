//! Entry point of the `serin` binary: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    serin::cli::main(std::env::args_os())
}
