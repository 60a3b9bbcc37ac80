//! The program around the data plane: command line, configuration, start and stop, load generator, demo.

pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod hashdist;
pub mod http1;
pub mod influxd;
pub mod ledger_report;
pub mod load;
pub mod log_command;
pub mod logger;
pub mod migrate;
pub mod preflight;
pub mod proxy;
pub mod serials;
pub mod serve;
pub mod sink;
pub mod standin;
pub mod tls;
