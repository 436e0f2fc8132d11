//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: this may be the init of a step, which must have a single thread.
    kiln_runtime::intercept();
    kiln::main()
}
