//! `fluxgate demo`: runs the demo with this program as the proxy.

use std::sync::atomic::AtomicBool;

use crate::lab::demo::{DemoArgs, run};

/// Runs the command; the error is the exit status. `stop` ends it early, which counts as a failure.
pub fn main(args: &DemoArgs, stop: &AtomicBool) -> Result<(), u8> {
    let outcome = std::env::current_exe().and_then(|executable| run(args, &executable, stop));
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(1),
        Err(e) => {
            eprintln!("fluxgate demo: {e}");
            Err(2)
        }
    }
}
