//! `POST /clear`, `POST /cleanup` in 2.5: removes what lies on a backend of a circle that does not own it.

use super::{Action, Call, State, order};
use crate::migration::plan::Goal;

pub fn decide(state: &State, call: &Call<'_>) -> Action {
    match order::circle(state, call, "circle_id") {
        Ok(circle) => order::begin(state, call, Goal::Clear { circle }),
        Err(refused) => refused,
    }
}
