//! One file or folder for each command other than `serve`: its arguments and what it does.

pub mod check;
pub mod hashdist;
pub mod log_files;
pub mod migrate;
