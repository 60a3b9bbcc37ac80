//! The program around the data plane: command line, configuration, start and stop, and the other commands.
//!
//! `lab` is not part of the product: it holds what measures and checks it.

pub mod cli;
pub mod commands;
pub mod config;
pub mod lab;
mod limits;
pub mod logger;
pub mod serve;
pub mod tls;
