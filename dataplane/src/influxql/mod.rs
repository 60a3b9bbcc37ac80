//! InfluxQL: parses text into a tree and prints it again.
//!
//! ```text
//!   text ──lex──> tokens ──parse──> ast ──print──> text with the same meaning
//!                    ↑ bind: $name from the `params` of the request       ↓ unbind: what only `params` can hold
//! ```
//!
//! The parser accepts what InfluxDB 1.x accepts (`tests/golden/influxql.jsonl` has recorded answers). Its error texts
//! are our own. The client gets InfluxDB's text instead, from a backend that is sent the same statement, unless
//! [`ParseError::ours`] or [`may_change`] forbids that. Left to the backends: whether a time zone exists, and details
//! of regular expressions. Not here: where a statement's data lies (`routing::reach`), whether a statement makes sense
//! (a backend decides).

pub mod ast;
mod bind;
mod duration;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(test)]
mod golden_test;
mod lex;
#[cfg(test)]
mod limit_test;
mod parse;
pub mod print;
#[cfg(test)]
mod print_test;
mod regex;
#[cfg(test)]
mod tree_test;
mod unbind;
pub mod visit;

pub use bind::{Params, ParamsError};
pub use lex::may_change;
pub use parse::{Depth, ErrorKind, ParseError, Unparsed, parse, parse_request};
pub use unbind::unbind;
