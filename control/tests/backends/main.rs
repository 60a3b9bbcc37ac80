//! Tests of the control thread as workers see it, with real and broken backends behind it.

mod faults;
mod influxd;
mod intercept;
mod migration;
mod overwritten;
mod render;
mod select;
mod show;
mod support;
