//! `GET /encrypt`: a text in the cipher of the configuration file. `text` is the name of `msg` in influx-proxy 2.5.

use super::params::Params;
use super::{Action, State, text};
use crate::cipher;

pub fn decide(_: &State, params: Params<'_>) -> Action {
    Action::Answer(text(200, &cipher::encrypt(params.any(&["msg", "text"]))))
}
