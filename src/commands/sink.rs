//! `fluxgate sink`: prints the addresses of the sinks and serves them.

use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use crate::lab::sink::{SinkArgs, Sinks};

/// Runs the command until `stop`.
pub fn main(args: &SinkArgs, out: &mut impl Write, stop: &AtomicBool) -> io::Result<()> {
    let sinks = Sinks::bind(&args.addrs)?;
    for addr in sinks.addrs()? {
        writeln!(out, "{addr}")?;
    }
    out.flush()?;
    sinks.serve(stop)
}
