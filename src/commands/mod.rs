//! One file or folder for each command other than `serve`: its arguments and what it does.

pub mod check;
pub mod demo;
pub mod hashdist;
pub mod import_config;
pub mod load;
pub mod log_files;
pub mod migrate;
pub mod secret;
pub mod sink;
