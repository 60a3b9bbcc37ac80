//! `POST /resync`: all circles get what the others have.

use super::{Action, Call, State, order};
use crate::migration::plan::Goal;

pub fn decide(state: &State, call: &Call<'_>) -> Action {
    order::begin(state, call, Goal::Resync)
}
