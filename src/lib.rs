//! The program around the data plane: command line, configuration, start and stop, load generator, demo.

pub mod check;
pub mod cli;
pub mod config;
pub mod hashdist;
pub mod lab;
pub mod ledger_report;
pub mod log_command;
pub mod logger;
pub mod migrate;
pub mod preflight;
pub mod serve;
pub mod tls;
