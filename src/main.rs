//! Entry point of the `serin` binary: arguments in, exit status out.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A pass makes many small values, and a quarter of its time went into the allocator of the C library.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    serin::cli::main(std::env::args_os())
}
