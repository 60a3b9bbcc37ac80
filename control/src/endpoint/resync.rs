//! `POST /resync`: copies to each circle what it lacks and another circle has.

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::Goal;

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    order::begin(state, call, Goal::Resync)
}
