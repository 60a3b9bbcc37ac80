//! Promise: the cluster answers queries as one InfluxDB that holds all data.
//!
//! One real influxd, the oracle, and a cluster of five more behind the real binary are given the same data and asked
//! the same queries. One program for all files, since linking takes longer than most of the tests.

#[path = "../support/golden.rs"]
mod golden;
#[path = "../support/mod.rs"]
mod support;

mod ask;
mod changes;
mod command_line;
mod compare;
mod corpus;
mod data;
mod departures;
mod draining;
mod generated;
mod harness;
mod lexical;
mod pair;
mod python;
mod reading;
mod recorded;
mod stopped;
mod world;
