//! `POST /clear` (`POST /cleanup` in 2.5): removes from the backends of a circle the measurements that they do not own.

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::Goal;

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    match order::circle(state, call, "circle_id") {
        Ok(circle) => order::begin(state, call, Goal::Clear { circle }),
        Err(refused) => refused,
    }
}
