//! `POST /clear`, `POST /cleanup` in 2.5: removes what lies on a backend of a circle that does not own it.

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::Goal;

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    match order::circle(state, call, "circle_id") {
        Ok(circle) => order::begin(state, call, Goal::Clear { circle }),
        Err(refused) => refused,
    }
}
