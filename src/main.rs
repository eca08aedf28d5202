//! The `obtrace` binary.

use std::process::ExitCode;

use clap::Parser;

// Batches are allocated on one thread and freed on another all day: glibc's allocator is slow at just that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages hold 50 MiB more for the same data, and make the kernel move memory about once it lies in pieces. Our
    // allocator does not ask for them (`no_thp`); some kernels give them to all. Children take this along; where it is
    // refused, all is as before.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
    obtrace::cli::Cli::parse().run()
}
