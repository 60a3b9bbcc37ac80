//! `POST /resync`: all circles get what the others have.

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::Goal;

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    order::begin(state, call, Goal::Resync)
}
