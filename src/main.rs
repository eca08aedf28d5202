//! The `obtrace` binary.

use std::process::ExitCode;

use clap::Parser;

// Batches are allocated on one thread and freed on another all day: glibc's allocator is slow at just that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    obtrace::cli::Cli::parse().run()
}
