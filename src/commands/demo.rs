//! `fluxgate demo`: runs the demo with this program as the proxy.

use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use crate::lab::demo::{DemoArgs, run};

/// Runs the command. False if the proof failed. `stop` ends it early, which counts as a failure.
///
/// # Errors
/// When something cannot be started or asked, or nothing can be printed.
pub fn main(args: &DemoArgs, stop: &AtomicBool, out: &mut dyn Write) -> io::Result<bool> {
    run(args, &std::env::current_exe()?, stop, out)
}
